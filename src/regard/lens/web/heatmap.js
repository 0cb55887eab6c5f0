// One map, large: a canvas with labels on its sides, in which the pointer and the arrow keys point at cells; or a table.

const LARGEST_CELL = 40, LEAST_DOWN = 15, LEAST_ACROSS = 18;  // pixels: the side of a cell; from one label to the next
const TALLEST = 1200;  // pixels: what all rows take, unless their labels need more
const LABEL_FONT = "13px system-ui, sans-serif";
const SLANT = Math.PI / 3.4;  // of the labels across

// Draws into `root`; `point({row, column} or null)` and `hold(...)` take bins, one of which may be null.
// Returns {mark}: outline what is chosen, {row, column, marked: columns of the row}.
function drawHeatMap(root, map, {label, point, hold}) {
  const {shownRows, shownColumns} = map, rows = shownRows.length, columns = shownColumns.length;
  const [base, overlay] = [0, 1].map(() => make("canvas", {ariaHidden: "true"}));
  const area = make("div", {className: "canvas", tabIndex: 0, role: "application", ariaLabel: label}, base, overlay);
  area.setAttribute("aria-roledescription", "heat map");
  root.replaceChildren(area);

  const names = [[map.rowAxis, map.rowEdges, shownRows], [map.columnAxis, map.columnEdges, shownColumns]]
    .map(([axis, edges, bins]) => bins.map(bin => shortLabelOf(axis, edges, bin)));
  const pen = base.getContext("2d"), marker = overlay.getContext("2d");
  pen.font = LABEL_FONT;
  const widest = texts => Math.max(...texts.map(text => pen.measureText(text).width));
  const total = root.clientWidth;
  const left = Math.min(widest(names[0]) + 10, Math.max(total * 0.28, 56));
  const longest = Math.min(widest(names[1]), 150);
  const top = Math.ceil(longest * Math.sin(SLANT)) + 12, right = Math.min(longest * Math.cos(SLANT), total * 0.14);
  const cell = Math.min(LARGEST_CELL, (total - left - right) / columns, Math.max(LEAST_DOWN, TALLEST / rows));
  const width = Math.ceil(left + cell * columns + right), height = Math.ceil(top + cell * rows) + 2;
  const mirrored = map.columnAxis.rightToLeft;  // words of a script that is written from right to left stand so
  const xOf = index => left + cell * (mirrored ? columns - 1 - index : index), yOf = index => top + cell * index;
  area.style.width = `${width}px`;
  for (const [canvas, context] of [[base, pen], [overlay, marker]]) {
    const dots = devicePixelRatio;
    Object.assign(canvas, {width: width * dots, height: height * dots});
    Object.assign(canvas.style, {width: `${width}px`, height: `${height}px`});
    context.scale(dots, dots);
  }
  paintCells();
  paintLabels();

  function paintCells() {
    const gap = cell > 12 ? 1.5 : 0;
    shownRows.forEach((row, i) => shownColumns.forEach((column, j) => {
      pen.fillStyle = palette.css[levelOf(map.weight(row, column))];
      // without a gap, cells reach to the next whole pixel, so that no line shows between them
      const [x, y] = gap ? [xOf(j), yOf(i)] : [Math.floor(xOf(j)), Math.floor(yOf(i))];
      const [x2, y2] = gap ? [x + cell - gap, y + cell - gap] : [Math.ceil(xOf(j) + cell), Math.ceil(yOf(i) + cell)];
      pen.fillRect(x, y, x2 - x, y2 - y);
    }));
  }

  function paintLabels() {
    const style = getComputedStyle(root);
    pen.fillStyle = style.color;
    pen.font = LABEL_FONT;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    every(rows, LEAST_DOWN, i => pen.fillText(fitted(names[0][i], left - 8), left - 6, yOf(i) + cell / 2));
    pen.textAlign = "left";
    every(columns, LEAST_ACROSS, j => {
      pen.save();
      pen.translate(xOf(j) + cell / 2, top - 6);
      pen.rotate(-SLANT);
      pen.fillText(fitted(names[1][j], longest), 0, 0);
      pen.restore();
    });
  }

  // Draw every so many labels that they have room.
  function every(number, least, draw) {
    const step = Math.max(1, Math.ceil(least / cell));
    for (let i = 0; i < number; i += step) draw(i);
  }

  function fitted(text, room) {
    if (pen.measureText(text).width <= room) return text;
    let end = text.length;
    while (end > 1 && pen.measureText(`${text.slice(0, end)}…`).width > room) end--;
    return `${text.slice(0, end)}…`;
  }

  function mark({row, column, marked}) {
    marker.clearRect(0, 0, width, height);
    const accent = getComputedStyle(root).getPropertyValue("--accent");
    const i = shownRows.indexOf(row), j = shownColumns.indexOf(column);
    const outline = (x, y, wide, tall, line) => {
      marker.lineWidth = line;
      marker.strokeRect(x - 0.5, y - 0.5, wide, tall);
    };
    marker.strokeStyle = accent;
    if (i >= 0) outline(left, yOf(i), cell * columns, cell, 1);
    if (j >= 0) outline(xOf(j), top, cell, cell * rows, 1);
    if (i >= 0) for (const one of marked ?? []) outline(xOf(shownColumns.indexOf(one)), yOf(i), cell, cell, 1.5);
    if (i >= 0 && j >= 0) outline(xOf(j), yOf(i), cell, cell, 3);
  }

  let cursor = [0, 0];
  const binsAt = event => {
    const box = area.getBoundingClientRect();
    const i = Math.floor((event.clientY - box.top - top) / cell), shown = Math.floor((event.clientX - box.left - left) / cell);
    const j = mirrored ? columns - 1 - shown : shown;
    const row = i >= 0 ? shownRows[i] : undefined, column = shown >= 0 && j >= 0 ? shownColumns[j] : undefined;
    if (row !== undefined && column !== undefined) cursor = [i, j];
    return row === undefined && column === undefined ? null : {row: row ?? null, column: column ?? null};
  };
  const ofCursor = () => ({row: shownRows[cursor[0]], column: shownColumns[cursor[1]]});
  area.addEventListener("pointermove", event => point(binsAt(event)));
  area.addEventListener("pointerleave", () => point(null));
  area.addEventListener("focus", () => area.matches(":focus-visible") && point(ofCursor()));
  area.addEventListener("blur", () => point(null));
  area.addEventListener("click", event => hold(binsAt(event)));
  area.addEventListener("keydown", event => {
    const side = mirrored ? -1 : 1;
    const step = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -side], ArrowRight: [0, side],
      Home: [0, -columns], End: [0, columns], PageUp: [-10, 0], PageDown: [10, 0],
    }[event.key];
    if (event.key === "Enter" || event.key === " ") hold(ofCursor());
    else if (event.key === "Escape") hold(null);
    else if (!step) return;
    else {
      cursor = cursor.map((index, k) => Math.min(Math.max(index + step[k], 0), (k ? columns : rows) - 1));
      point(ofCursor());
    }
    event.preventDefault();
  });
  return {mark};
}

// The same as a table of percents.
function drawTable(root, map, label) {
  const {shownRows, shownColumns} = map;
  const table = make("table", {className: "weights", dir: map.columnAxis.rightToLeft ? "rtl" : "ltr"});
  table.append(make("caption", {textContent: `${label}, in percent`}));
  const header = make("tr", {}, make("th", {scope: "col", textContent: `${map.rowAxis.name} ↓ ${map.columnAxis.name} →`}),
    ...shownColumns.map(column => make("th", {scope: "col", textContent: labelOf(map.columnAxis, map.columnEdges, column)})));
  const lines = shownRows.map(row => make("tr", {},
    make("th", {scope: "row", textContent: labelOf(map.rowAxis, map.rowEdges, row)}),
    ...shownColumns.map(column => make("td", {textContent: (100 * map.weight(row, column)).toFixed(1)}))));
  table.append(make("thead", {}, header), make("tbody", {}, ...lines));
  root.replaceChildren(make("div", {className: "scroll", tabIndex: 0, role: "region", ariaLabel: label}, table));
  return {mark() {}};
}
