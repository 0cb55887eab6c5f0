// The page: what is chosen, and how a choice in one view shows in the others.

const at = id => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const {role, ...others} = properties, element = Object.assign(document.createElement(tag), others);
  if (role) element.setAttribute("role", role);
  element.append(...children);
  return element;
};
const percent = share => share >= 0.0995 || share === 0 ? `${Math.round(100 * share)}%` : `${(100 * share).toFixed(share < 0.00995 ? 2 : 1)}%`;
const count = number => number.toLocaleString("en");

const NAMED = 4;  // words that a sentence names

let views = [], view, layers;
let chosen = {layer: null, head: null};  // null: the mean of all
let map, rowPanel, columnPanel, heatMap;
// What is pointed at, or held: {rowBin, rowPlace, columnBin, columnPlace, isCell}, each null where it does not apply.
let over = null, held = null;

// --- choices ---

function openViews(some, number = 0) {
  views = some;
  fill(at("text"), views.map((one, i) => [String(i), views.length > 1 ? `${i + 1}. ${beginning(one)}` : beginning(one)]));
  at("text").value = String(number);
  openView();
}

function beginning({layers: [layer], axes}) {
  const {labels, special} = axes.source ?? axes[layer.columns];
  return labels.filter((_, place) => !special.has(place)).slice(0, 12).map(plainLabel).join(" ");
}

function openView() {
  view = views[Number(at("text").value)];
  fill(at("kind"), Object.keys(kindsOf(view)).map(kind => [kind, kind]));
  at("notes").replaceChildren(...view.notes.map(note => make("li", {textContent: note})));
  at("notes").hidden = !view.notes.length;
  drawAttributions(at("attributed"), view);
  openKind();
}

function openKind() {
  layers = kindsOf(view)[at("kind").value];
  const heads = Math.max(...layers.map(layer => layer.heads));
  if (chosen.layer >= layers.length) chosen.layer = null;
  if (chosen.head >= heads) chosen.head = null;
  const numbers = (size, what) => size > 1 ? [["", `mean of ${size}`], ...numbered(size, what)] : numbered(size, what);
  fill(at("layer"), numbers(layers.length, "layer"));
  fill(at("head"), numbers(heads, "head"));
  if (layers.length === 1) chosen.layer = 0;
  if (heads === 1) chosen.head = 0;
  const [{rows, columns, rowEdges, columnEdges}] = layers;
  const sizes = rows === columns ? `${count(rowEdges.at(-1))} places` : `${count(rowEdges.at(-1))} × ${count(columnEdges.at(-1))} places`;
  const width = Math.max(rowEdges[1] - rowEdges[0], columnEdges[1] - columnEdges[0]);
  at("about").textContent = [
    `${layers.length} ${layers.length > 1 ? "layers" : "layer"} × ${heads} ${heads > 1 ? "heads" : "head"}`, sizes,
    ...width > 1 ? [`in bins of ${count(width)}`] : [],
  ].join(" · ");
  const special = [[rows, rowEdges], [columns, columnEdges]].some(([name, edges]) => hasSpecial(view.axes[name], edges));
  at("special").disabled = !special;
  held = over = null;
  drawOverview(at("thumbnails"), layers, chosen, (layer, head) => {
    chosen = {layer, head};
    showHead();
  });
  drawPanels();
  showHead();
}

function drawPanels() {
  const [{rows, columns, rowEdges, columnEdges}] = layers;
  const panel = (side, name, edges, verb) => {
    const axis = view.axes[name];
    at(`${side}-name`).textContent = `${name === "target read" ? "target" : name}: ${verb}`;
    return (panels[axis.kind] ?? panels.words)(at(`${side}-words`), axis, edges, {
      id: side, label: `${name}: ${verb}`,
      point: place => point(place === null ? null : choiceOf(side, place)),
      hold: place => hold(place === null ? null : choiceOf(side, place)),
    });
  };
  columnPanel = panel("columns", columns, columnEdges, "what is attended to");
  rowPanel = panel("rows", rows, rowEdges, "what attends");
}

// A place of a panel; of an attention of an axis to itself it stands for both sides.
function choiceOf(side, place) {
  const [{rows, columns, rowEdges, columnEdges}] = layers, same = rows === columns;
  const row = side === "rows" || same, column = side === "columns" || same;
  return {
    rowBin: row ? binOf(rowEdges, place) : null, rowPlace: row ? place : null,
    columnBin: column ? binOf(columnEdges, place) : null, columnPlace: column ? place : null, isCell: false,
  };
}

function showHead() {
  at("layer").value = chosen.layer === null || layers.length === 1 ? at("layer").options[0].value : String(chosen.layer);
  at("head").value = chosen.head === null || at("head").options.length === 1 ? at("head").options[0].value : String(chosen.head);
  markThumbnail(at("thumbnails"), chosen);
  map = mapOf(view, headsOf(layers, chosen.layer, chosen.head),
    {withoutSpecial: at("special").checked && !at("special").disabled, withoutSinks: at("sinks").checked});
  const name = nameOf(layers, chosen.layer, chosen.head);
  at("head-name").textContent = name[0].toUpperCase() + name.slice(1);
  showFacts();
  drawMap();
  light();
}

function drawMap() {
  const label = `Attention of ${at("kind").value}, ${nameOf(layers, chosen.layer, chosen.head)}`;
  at("across").textContent = `${map.columnAxis.name.replace(" read", "")} ${map.columnAxis.rightToLeft ? "←" : "→"}`;
  at("down").textContent = `${map.rowAxis.name} ↓`;
  const binsOf = bins => bins && {
    rowBin: bins.row, rowPlace: onlyPlace(map.rowEdges, bins.row),
    columnBin: bins.column, columnPlace: onlyPlace(map.columnEdges, bins.column),
    isCell: bins.row !== null && bins.column !== null,
  };
  heatMap = !map.shownRows.length || !map.shownColumns.length
    ? (at("map").replaceChildren("Nothing is left to show."), {mark() {}})
    : at("as-table").checked ? drawTable(at("map"), map, label)
    : drawHeatMap(at("map"), map, {label, point: bins => point(binsOf(bins)), hold: bins => hold(binsOf(bins))});
}

const onlyPlace = (edges, bin) => bin !== null && edges[bin + 1] - edges[bin] === 1 ? edges[bin] : null;

function showFacts() {
  const {heads, sinks, columnAxis} = map, facts = [];
  const entropy = meanOf(heads, "entropy"), distance = meanOf(heads, "distance");
  if (entropy !== undefined) facts.push(["mean entropy", `${entropy.toFixed(2)} nats`]);
  if (distance !== undefined && heads[0][0].rows === heads[0][0].columns)
    facts.push(["mean distance", `${Math.abs(distance).toFixed(1)} places ${distance < 0 ? "ahead" : "back"}`]);
  for (const {place, share} of sinks)
    facts.push(["sink", `${plainLabel(columnAxis.labels[place])}, place ${count(place + 1)}: ${percent(share)} of all weight`]);
  const errors = heads.map(([layer]) => layer.error).filter(error => error !== null);
  if (errors.length) facts.push(["error of the output", Math.max(...errors) ? Math.max(...errors).toExponential(0) : "0"]);
  at("facts").replaceChildren(...facts.map(([name, value]) =>
    make("div", {}, make("dt", {textContent: name}), make("dd", {textContent: value}))));
  at("sinks").disabled = !sinks.length && !at("sinks").checked;
  at("rest").hidden = map.isWhole;
}

// --- pointing and holding ---

function point(choice) {
  if (JSON.stringify(choice) === JSON.stringify(over)) return;
  over = choice;
  light();
}

function hold(choice) {
  held = choice && JSON.stringify(choice) !== JSON.stringify(held) ? choice : null;
  if (!held) over = null;
  light();
}

// Color everything for what is pointed at, or else held.
function light() {
  const choice = over ?? held ?? {rowBin: null, columnBin: null, rowPlace: null, columnPlace: null};
  const {rowBin, rowPlace, columnBin, columnPlace} = choice;
  const hasRow = rowBin !== null && map.shownRows.includes(rowBin), hasColumn = columnBin !== null && map.shownColumns.includes(columnBin);
  const marked = hasRow ? massOf(map.shownColumns, column => map.weight(rowBin, column)) : [];
  const shownColumns = new Set(map.shownColumns), shownRows = new Set(map.shownRows);
  columnPanel.paint({
    bin: hasRow ? column => shownColumns.has(column) ? map.weight(rowBin, column) : 0 : undefined,
    place: rowPlace === null || !map.isWhole ? undefined
      : new Map(largestOf(map.heads, rowPlace).map(({place, weight}) => [place, weight])),
    marked: new Set(marked), current: {bin: columnBin, place: columnPlace},
  });
  rowPanel.paint({
    bin: hasColumn ? row => shownRows.has(row) ? map.weight(row, columnBin) : 0 : undefined,
    current: {bin: rowBin, place: rowPlace},
  });
  heatMap.mark({row: rowBin, column: columnBin, marked});
  at("reading").replaceChildren(...reading(choice, hasRow, hasColumn, marked));
}

// The same in words, for the eye and for screen readers.
function reading({rowBin, rowPlace, columnBin, isCell}, hasRow, hasColumn, marked) {
  const bold = text => make("b", {textContent: text});
  const rowName = bin => labelOf(map.rowAxis, map.rowEdges, bin), columnName = bin => labelOf(map.columnAxis, map.columnEdges, bin);
  if (isCell && hasRow && hasColumn)
    return [bold(rowName(rowBin)), " attends to ", bold(columnName(columnBin)), ` with weight ${percent(map.weight(rowBin, columnBin))}.`];
  const largest = (bins, name, weight) => [...bins].sort((one, other) => weight(other) - weight(one)).slice(0, NAMED)
    .filter(bin => weight(bin) >= TINTED).flatMap((bin, i) => [i ? ", " : "", bold(name(bin)), ` ${percent(weight(bin))}`]);
  const parts = [];
  if (hasRow) {
    const isBinned = map.columnEdges.length - 1 < map.columnAxis.labels.length;
    const exact = isBinned && map.isWhole && rowPlace !== null ? largestOf(map.heads, rowPlace) : [];
    const bins = isBinned ? " bins" : "";
    parts.push(bold(rowPlace === null ? rowName(rowBin) : plainLabel(map.rowAxis.labels[rowPlace])), " attends to ",
      ...exact.length ? exact.slice(0, NAMED).flatMap(({place, weight}, i) =>
        [i ? ", " : "", bold(plainLabel(map.columnAxis.labels[place])), ` (place ${count(place + 1)}) ${percent(weight)}`]) : [],
      ...exact.length ? ["; its bin to "] : [],
      ...largest(map.shownColumns, columnName, column => map.weight(rowBin, column)),
      `. 70% of the weight is on ${marked.length} of ${map.shownColumns.length}${bins}.`);
  }
  if (hasColumn) {
    const names = largest(map.shownRows, rowName, row => map.weight(row, columnBin));
    parts.push(hasRow ? " " : "", bold(columnName(columnBin)), " is attended to by ", ...names.length ? names : ["none in particular"], ".");
  }
  return parts.length ? parts : ["Point at a word or a cell to see what belongs to it."];
}

// --- files ---

async function openFile(file) {
  try {
    openViews([await readView(new Uint8Array(await file.arrayBuffer()))]);
    document.querySelector("h1").textContent = view.title;
    say(`opened ${file.name}`);
  } catch (error) {
    say(`${file.name} holds no view of attention: ${error.message}`);
  }
}

function saveFile() {
  const isZip = view.bytes[0] === 0x50, url = URL.createObjectURL(new Blob([view.bytes]));
  make("a", {href: url, download: isZip ? "attention.npz" : "attention.json"}).click();
  URL.revokeObjectURL(url);
}

const say = text => at("status").textContent = text;

// --- start ---

function numbered(size, what) {
  return Array.from({length: size}, (_, i) => [String(i), `${what} ${i + 1}`]);
}

function fill(select, entries) {
  const before = select.value;
  select.replaceChildren(...entries.map(([value, text]) => make("option", {value, textContent: text})));
  select.value = entries.some(([value]) => value === before) ? before : entries[0][0];
  select.parentElement.hidden = entries.length < 2;
}

function redraw() {
  choosePalette(at("colors").value);
  drawColorBar(at("bar"), at("ticks"));
  if (!views.length) return;
  drawAttributions(at("attributed"), view);
  repaintThumbnails(at("thumbnails"), layers);
  showHead();
}

at("text").addEventListener("change", openView);
at("kind").addEventListener("change", openKind);
for (const id of ["layer", "head"])
  at(id).addEventListener("change", () => {
    chosen[id] = at(id).value === "" ? null : Number(at(id).value);
    showHead();
  });
for (const id of ["special", "sinks", "as-table"]) at(id).addEventListener("change", showHead);
at("colors").addEventListener("change", redraw);
prefersDark.addEventListener("change", redraw);
at("file").addEventListener("change", () => at("file").files.length && openFile(at("file").files[0]));
at("save").addEventListener("click", saveFile);
addEventListener("dragover", event => event.preventDefault());
addEventListener("drop", event => {
  event.preventDefault();
  if (event.dataTransfer.files.length) openFile(event.dataTransfer.files[0]);
});
let drawnWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === drawnWidth) return;
  drawnWidth = innerWidth;
  drawMap();
  light();
});

redraw();
Promise.all([...document.querySelectorAll("script.view")].map(script => readView(bytesOfBase64(script.textContent))))
  .then(some => {
    at("page").hidden = false;
    openViews(some);
    requestAnimationFrame(() => performance.mark("drawn"));
  })
  .catch(error => at("about").textContent = `This browser cannot read the page's data: ${error.message}`);
