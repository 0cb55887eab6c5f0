// Every layer and head as a thumbnail: a table of buttons, among which the arrow keys move.

const MOST_BESIDE = 17;  // thumbnails of a layer beside the words; more stand above them

function drawOverview(root, layers, chosen, choose) {
  const heads = Math.max(...layers.map(layer => layer.heads));
  const columns = heads > 1 ? [null, ...Array(heads).keys()] : [0];
  const rows = layers.length > 1 ? [null, ...layers.keys()] : [0];
  const number = index => index === null ? "all" : String(index + 1);
  const thumbnail = (layer, head) => {
    const some = headsOf(layers, layer, head);
    if (!some.length) return make("td");
    const button = make("button", {
      type: "button", className: "thumbnail", ariaLabel: nameOf(layers, layer, head), title: nameOf(layers, layer, head),
    }, paintThumbnail(make("canvas"), some));
    Object.assign(button, {layer, head, onclick: () => choose(layer, head)});
    return make("td", {}, button);
  };
  const header = make("tr", {}, make("td"), ...columns.map(head => make("th", {scope: "col", textContent: number(head)})));
  const body = rows.map(layer => make("tr", {},
    make("th", {scope: "row", textContent: number(layer)}), ...columns.map(head => thumbnail(layer, head))));
  const table = make("table", {className: "thumbnails"},
    make("caption", {textContent: "Layers down, heads across; “all” is their mean"}),
    make("thead", {}, header), make("tbody", {}, ...body));
  table.style.maxWidth = `${5.3 * columns.length + 3}rem`;
  table.style.minWidth = `${1.2 * columns.length + 2}rem`;
  root.closest("#views").classList.toggle("wide", columns.length > MOST_BESIDE);
  table.addEventListener("keydown", event => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    const cell = event.target.closest("td");
    if (!step || !cell) return;
    event.preventDefault();
    const button = table.rows[cell.parentElement.rowIndex + step[0]]?.cells[cell.cellIndex + step[1]]?.querySelector("button");
    if (!button) return;
    button.focus();
    button.click();
  });
  root.replaceChildren(table);
  root.parentElement.hidden = rows.length * columns.length < 2;
  markThumbnail(root, chosen);
}

// Mark the thumbnail of the layer and head that are shown; it is the one that Tab comes to.
function markThumbnail(root, {layer, head}) {
  for (const button of root.querySelectorAll("button")) {
    const isChosen = button.layer === layer && button.head === head;
    button.ariaPressed = String(isChosen);
    button.tabIndex = isChosen ? 0 : -1;
  }
}

// Paint the thumbnails again, in other colors.
function repaintThumbnails(root, layers) {
  for (const {layer, head, firstChild: canvas} of root.querySelectorAll("button"))
    paintThumbnail(canvas, headsOf(layers, layer, head));
}

function paintThumbnail(canvas, heads) {
  const [, height, width] = heads[0][0].grid.shape;
  Object.assign(canvas, {width, height});
  canvas.getContext("2d").putImageData(imageOf(gridOf(heads), width, height), 0, 0);
  return canvas;
}

function imageOf(values, width, height) {
  const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = palette.pixels[levelOf(values[i])];
  return image;
}

// "layer 2, mean of 12 heads"
function nameOf(layers, layer, head) {
  const parts = [["layer", layer, layers.length], ["head", head, Math.max(...layers.map(one => one.heads))]];
  return parts.filter(([, , count]) => count > 1)
    .map(([what, index, count]) => index === null ? `mean of ${count} ${what}s` : `${what} ${index + 1}`).join(", ") || "the only head";
}
