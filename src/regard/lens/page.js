"use strict";
// [{source, kinds: {kind: {name, axes: [of rows, of columns], words: [rows, columns], layers}}}]
// A layer is a list of heads, a head its weights in thousandths, row after row.
const pairs = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const percent = share => share >= 0.0995 || share === 0 ? `${Math.round(100 * share)} %` : `${(100 * share).toFixed(1)} %`;
const FAINT = 0.05, UNSEEN = 0.03;  // a weight that is not written in its cell; a share that does not tint a word
// the ink on a color, by its share of the largest weight; as in page.py
const inkOn = share => share > 0.69 ? "strong" : share > 0.54 ? "middle" : "";

let shown;   // the map on the page: {rows, columns, axes, weights(row, column), most}
let held = null, over = null;  // {row} or {column} or both: what was clicked, what is pointed at

// The mean of some layers and heads; "mean" takes all.
function weightsOf(layers, layer, head) {
  const maps = (layer === "mean" ? layers : [layers[layer]]).flatMap(heads => head === "mean" ? heads : [heads[head]]);
  return maps[0].map((_, i) => maps.reduce((sum, map) => sum + map[i], 0) / maps.length / 1000);
}

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => make("option", {value, textContent: text})));
  select.value = entries.some(([value]) => value === chosen) ? chosen : entries[0][0];
  select.parentElement.hidden = entries.length < 2;
}

// Fill the choices from the sentence and kind that are chosen.
function offer() {
  const {kinds} = pairs[Number(at("pair").value)];
  options(at("kind"), Object.entries(kinds).map(([kind, {name}]) => [kind, name]), at("kind").value);
  const {layers} = kinds[at("kind").value];
  const numbered = (count, what) => {
    const each = Array.from({length: count}, (_, i) => [String(i), String(i + 1)]);
    return count > 1 ? [["mean", `mean of ${count} ${what}`], ...each] : [["mean", "1"]];
  };
  options(at("layer"), numbered(layers.length, "layers"), at("layer").value);
  options(at("head"), numbered(layers[0].length, "heads"), at("head").value);
}

function show() {
  const {name, axes, words: [rows, columns], layers, facts} = pairs[Number(at("pair").value)].kinds[at("kind").value];
  const layer = at("layer").value, head = at("head").value, values = weightsOf(layers, layer, head);
  shown = {rows, columns, axes, most: Math.max(...values, 1e-9), weights: (row, column) => values[row * columns.length + column]};
  drawTable(`Attention of ${name}${named(layers, layer, head)}`);
  drawWords("columns", columns, `${axes[1]} →`);  // the arrows tell the two apart where both are the source
  drawWords("rows", rows, `${axes[0]} ↓`);
  at("facts").textContent = layer === "mean" || head === "mean" ? "" : facts[layer][head];
  at("half").textContent = percent(shown.most / 2);
  at("most").textContent = percent(shown.most);
  drawSmall(layers, layer, head, rows.length, columns.length);
  light();
}

const named = (layers, layer, head) => [["layer", layer, layers.length], ["head", head, layers[0].length]]
  .filter(([, , count]) => count > 1)
  .map(([what, i, count]) => i === "mean" ? `, mean of ${count} ${what}s` : `, ${what} ${Number(i) + 1}`).join("");

function drawTable(title) {
  const {rows, columns, axes} = shown;
  const header = (scope, place, word) =>
    Object.assign(make("th", {scope, tabIndex: -1}, make("span", {textContent: word})), {place});
  const cell = (row, column) => {
    const weight = shown.weights(row, column), share = weight / shown.most;
    const td = make("td", {tabIndex: -1, textContent: String(Math.round(100 * weight))});
    td.className = weight < FAINT ? "" : `seen ${inkOn(share)}`;
    td.style.setProperty("--share", share.toFixed(3));
    return Object.assign(td, {place: {row, column}});
  };
  const across = make("th", {className: "axis across", scope: "colgroup", colSpan: columns.length, textContent: axes[1]});
  const down = make("th", {className: "axis down", textContent: axes[0]});
  const table = make("table", {},
    make("caption", {textContent: `${title}, in percent`}),
    make("thead", {}, make("tr", {}, make("td"), across),
      make("tr", {}, down, ...columns.map((word, column) => header("col", {column}, word)))),
    make("tbody", {}, ...rows.map((word, row) =>
      make("tr", {}, header("row", {row}, word), ...columns.map((_, column) => cell(row, column))))));
  table.style.setProperty("--slant", `${Math.min(12, 1 + 0.4 * Math.max(...columns.map(word => word.length)))}rem`);
  table.style.setProperty("--cell", `${columns.length > 24 ? 1.6 : columns.length > 12 ? 1.9 : 2.4}rem`);
  at("map").replaceChildren(table);
  table.tBodies[0].rows[0].cells[0].tabIndex = 0;
}

function drawWords(side, words, name) {
  at(`${side}-name`).textContent = name;
  at(`${side}-words`).replaceChildren(...words.map((word, i) => {
    const button = make("button", {type: "button", className: "word", textContent: word, tabIndex: i ? -1 : 0});
    return Object.assign(button, {place: side === "rows" ? {row: i} : {column: i}});
  }));
}

// Each layer and head as a small picture to click; the same choices stand in the lists above.
function drawSmall(layers, layer, head, rows, columns) {
  const heads = layers[0].length;
  at("all").hidden = layers.length * heads < 2;
  if (at("all").hidden) return;
  const style = getComputedStyle(document.documentElement), ink = style.getPropertyValue("--high");
  const grid = at("small"), picks = heads > 1 ? ["mean", ...Array(heads).keys()] : ["mean"];
  grid.style.gridTemplateColumns = `auto repeat(${picks.length}, minmax(0, 3.2rem))`;
  const cell = (l, h) => {
    const canvas = make("canvas", {width: columns, height: rows}), values = weightsOf(layers, l, h);
    const pen = canvas.getContext("2d"), most = Math.max(...values, 1e-9);
    pen.fillStyle = ink;
    values.forEach((weight, i) => {
      pen.globalAlpha = weight / most;
      pen.fillRect(i % columns, Math.floor(i / columns), 1, 1);
    });
    const label = named(layers, l, h).slice(2);
    const button = make("button", {type: "button", title: label, tabIndex: -1, ariaLabel: label}, canvas);
    button.ariaPressed = String(String(l) === layer && String(h) === head);
    button.onclick = () => {
      at("layer").value = l;
      at("head").value = h;
      show();
    };
    return button;
  };
  const lines = layers.length > 1 ? ["mean", ...layers.keys()] : ["mean"];
  const number = n => make("span", {textContent: n === "mean" ? "mean" : String(n + 1)});
  grid.replaceChildren(make("span", {textContent: "layer \\ head"}), ...picks.map(number),
    ...lines.flatMap(l => [number(l), ...picks.map(h => cell(l, h))]));
}

// Color words and cells for what is pointed at, or else held.
function light() {
  const place = over ?? held ?? {}, {row, column} = place;
  const alone = (row === undefined) !== (column === undefined);  // one word, and not a cell
  const table = at("map").querySelector("table");
  table.classList.toggle("held", row !== undefined || column !== undefined);
  for (const cell of table.querySelectorAll("tbody td, th[scope]")) {
    if (!cell.place) continue;
    const same = cell.place.row !== undefined && cell.place.row === row;
    const below = cell.place.column !== undefined && cell.place.column === column;
    cell.classList.toggle("on", same || below);
    cell.classList.toggle("at", same && below);
  }
  const tint = (side, mine, weight) => [...at(`${side}-words`).children].forEach((button, i) => {
    const share = weight(i) / shown.most;
    button.classList.toggle("on", mine === i);
    const ink = mine === i ? "" : inkOn(share);
    button.classList.toggle("tinted", mine !== i && share > UNSEEN);
    for (const name of ["middle", "strong"]) button.classList.toggle(name, ink === name);
    button.style.setProperty("--share", share.toFixed(3));
    button.ariaPressed = String(held !== null && (side === "rows" ? held.row : held.column) === i);
  });
  tint("columns", column, i => row === undefined ? 0 : alone ? shown.weights(row, i) : 0);
  tint("rows", row, i => column === undefined ? 0 : alone ? shown.weights(i, column) : 0);
  read(place);
}

// The same in words, for the eye and for screen readers.
function read({row, column}) {
  const {rows, columns, weights} = shown, b = word => make("b", {textContent: word});
  const largest = (words, weight) => words.map((word, i) => [word, weight(i)]).sort((x, y) => y[1] - x[1]).slice(0, 4)
    .filter(([, w]) => w >= 0.005).flatMap(([word, w], i) => [i ? ", " : "", b(word), ` ${percent(w)}`]);
  let parts = [];
  if (row !== undefined && column !== undefined)
    parts = [b(rows[row]), " attends to ", b(columns[column]), ` with weight ${percent(weights(row, column))}`];
  else if (row !== undefined) parts = [b(rows[row]), " attends to ", ...largest(columns, i => weights(row, i))];
  else if (column !== undefined) parts = [b(columns[column]), " is attended to by ", ...largest(rows, i => weights(i, column))];
  at("reading").replaceChildren(...parts);
}

const placed = event => event.target.closest?.("td, th, .word");
for (const area of [at("map"), at("sentences")]) {
  const point = event => {
    over = placed(event)?.place ?? null;
    light();
  };
  area.addEventListener("pointerover", point);
  area.addEventListener("focusin", point);
  for (const leave of ["pointerleave", "focusout"])
    area.addEventListener(leave, () => {
      over = null;
      light();
    });
  area.addEventListener("click", event => {
    const place = placed(event)?.place;
    if (place) held = JSON.stringify(held) === JSON.stringify(place) ? null : place;
    light();
  });
  area.addEventListener("keydown", event => {
    const from = placed(event);
    if (event.key === "Escape") held = over = null;
    else if (event.key === "Enter" && from?.place && from.tagName !== "BUTTON") from.click();
    else if (event.key.startsWith("Arrow") && from?.place) move(from, event);
    else return;
    light();
  });
}

// Arrow keys: along the words, or from cell to cell of the map. One of each stays in the order of Tab.
function move(from, event) {
  const [down, right] = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
  const line = from.closest("tr");
  const to = line ? line.closest("table").rows[line.rowIndex + down]?.cells[from.cellIndex + right]
    : from.parentElement.children[[...from.parentElement.children].indexOf(from) + (down || right)];
  event.preventDefault();
  if (!to?.place) return;
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

options(at("pair"), pairs.map((pair, i) => [String(i), `${i + 1}. ${pair.source.join(" ")}`]), "0");
offer();
for (const id of ["pair", "kind", "layer", "head"])
  at(id).addEventListener("change", () => {
    over = null;
    if (id === "pair" || id === "kind") held = null;
    offer();
    show();
  });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
at("choices").hidden = at("sentences").hidden = false;
show();
