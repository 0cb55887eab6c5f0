// Panels: what the places of an axis are drawn with, one function for each kind of axis. A picture's patches or a
// sound's frames are a further function here.
//
// panels[kind](root, axis, edges, {id, label, point, hold}) draws into `root` and returns {paint, show}:
//   point(place or null): the reader points at a place, or at none any more
//   hold(place or null): the reader holds a place, or lets go
//   paint({bin, place, marked, current}): color bins by the function bin(index) and places by the Map place; mark
//     the bins of the Set `marked`; outline the place or bin `current`, {bin, place}
//   show(place): bring a place into sight
const panels = {};

const MOST_WORDS = 1000;  // that stand on the page at once; of longer inputs a part is shown

panels.words = (root, axis, edges, {id, label, point, hold}) => {
  const list = make("div", {
    className: "words", role: "listbox", tabIndex: 0, ariaLabel: label, dir: axis.rightToLeft ? "rtl" : "ltr",
  });
  const spaced = spacingOf(axis.labels);
  const isBinned = edges.length - 1 < axis.labels.length;
  const parts = partsOf(edges);
  let part = 0, active = edges[0];
  let words = new Map(), bins = new Map();  // the elements in sight by place and by bin

  const earlier = make("button", {type: "button", textContent: "Earlier", onclick: () => turn(part - 1)});
  const later = make("button", {type: "button", textContent: "Later", onclick: () => turn(part + 1)});
  const where = make("span", {className: "soft"});
  root.replaceChildren(list);
  if (parts.length > 1) root.append(make("div", {className: "turn"}, earlier, where, later));

  function turn(number) {
    part = number;
    const [start, stop] = parts[part];
    words = new Map();
    bins = new Map();
    const contents = [];
    for (let bin = start; bin < stop; bin++) {
      const inside = [];
      for (let place = edges[bin]; place < edges[bin + 1]; place++) {
        const word = make("span", {className: "word", role: "option", id: `${id}-${place}`, ariaSelected: "false"});
        word.textContent = plainLabel(axis.labels[place]);
        word.place = place;
        words.set(place, word);
        if (spaced(place)) inside.push(" ");
        inside.push(word);
      }
      if (!isBinned) {
        bins.set(bin, words.get(edges[bin]));
        contents.push(...inside);
      } else {
        const group = make("span", {className: "bin", role: "group", ariaLabel: labelOf(axis, edges, bin)}, ...inside);
        bins.set(bin, group);
        contents.push(group);
      }
    }
    list.replaceChildren(...contents);
    where.textContent = `${count(edges[start] + 1)} to ${count(edges[stop])} of ${count(axis.labels.length)}`;
    earlier.disabled = part === 0;
    later.disabled = part === parts.length - 1;
    list.scrollTop = 0;
    setActive(edges[start]);
    repaint();
  }

  function setActive(place) {
    words.get(active)?.setAttribute("aria-selected", "false");
    active = place;
    words.get(active).setAttribute("aria-selected", "true");
    list.setAttribute("aria-activedescendant", `${id}-${active}`);
  }

  function show(place) {
    const number = parts.findIndex(([, stop]) => place < edges[stop]);
    if (number !== part) turn(number);
    setActive(place);
    const word = words.get(place), above = word.offsetTop - list.offsetTop;
    if (above < list.scrollTop || above + word.offsetHeight > list.scrollTop + list.clientHeight)
      list.scrollTop = above - list.clientHeight / 2;
  }

  let painted = {};
  const paint = painting => {
    painted = painting;
    repaint();
  };
  function repaint() {
    const {bin, place, marked, current} = painted;
    for (const [number, element] of bins) {
      const weight = bin?.(number) ?? 0;
      if (isBinned) element.style.boxShadow = weight > TINTED ? `inset 0 -3px ${palette.css[levelOf(weight)]}` : "";
      else tint(element, weight);
      element.classList.toggle("marked", marked?.has(number) ?? false);
    }
    if (isBinned)
      for (const [number, element] of words) tint(element, place?.get(number) ?? 0);
    list.querySelectorAll(".current").forEach(element => element.classList.remove("current"));
    if (current) (words.get(current.place) ?? bins.get(current.bin))?.classList.add("current");
  }

  list.addEventListener("pointerover", event => point(event.target.closest(".word")?.place ?? null));
  list.addEventListener("pointerleave", () => point(null));
  list.addEventListener("focus", () => list.matches(":focus-visible") && point(active));
  list.addEventListener("blur", () => point(null));
  list.addEventListener("click", event => {
    const word = event.target.closest(".word");
    if (!word) return;
    setActive(word.place);
    hold(word.place);
  });
  list.addEventListener("keydown", event => {
    const [back, forth] = axis.rightToLeft ? ["ArrowRight", "ArrowLeft"] : ["ArrowLeft", "ArrowRight"];
    const bin = binOf(edges, active), last = axis.labels.length - 1;
    const to = {
      [back]: active - 1, [forth]: active + 1, ArrowUp: active - 1, ArrowDown: active + 1, Home: 0, End: last,
      PageUp: isBinned ? edges[Math.max(bin - 1, 0)] : active - 10,
      PageDown: isBinned ? Math.min(edges[bin + 1], last) : active + 10,
    }[event.key];
    if (event.key === "Enter" || event.key === " ") hold(active);
    else if (event.key === "Escape") hold(null);
    else if (to === undefined) return;
    else {
      show(Math.min(Math.max(to, 0), last));
      point(active);
    }
    event.preventDefault();
  });

  turn(0);
  return {paint, show};
};

// Color an element by a weight, with an ink that can be read on it.
function tint(element, weight) {
  const level = weight > TINTED ? levelOf(weight) : 0;
  if (element.level === level && element.palette === palette) return;
  element.level = level;
  element.palette = palette;
  element.style.background = level ? palette.css[level] : "";
  element.style.color = level ? palette.ink[level] : "";
}

// Which bins stand on the page together: [first, end] of each part.
function partsOf(edges) {
  const parts = [];
  for (let start = 0; start < edges.length - 1;) {
    let stop = start + 1;
    while (stop < edges.length - 1 && edges[stop + 1] - edges[start] <= MOST_WORDS) stop++;
    parts.push([start, stop]);
    start = stop;
  }
  return parts;
}

// Whether a space stands before a place: by the marks of its tokenizer, or before every word.
function spacingOf(labels) {
  const some = labels.slice(0, 2000), has = mark => some.filter(label => mark.test(label)).length > some.length / 20;
  if (has(/^[Ġ▁]/u)) return place => place > 0 && (/^[Ġ▁]/u.test(labels[place]) || /[>\]]$/.test(labels[place - 1]));
  if (has(/^##/)) return place => place > 0 && !labels[place].startsWith("##");
  return place => place > 0;
}
