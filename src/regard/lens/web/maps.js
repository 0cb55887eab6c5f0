// Which map is on the page, and what is known of its head.

const SINK = 0.3;  // share of a head's weight from which a key is named as its sink
const MASS = 0.7;  // share of a row's weight on the places that are marked

const ORDER = ["target to source", "source to itself"];  // of kinds: these are shown first

const kindOf = layer => {
  const columns = layer.columns === `${layer.rows} read` ? layer.rows : layer.columns;
  return `${layer.rows} to ${columns === layer.rows ? "itself" : columns}`;
};

// The layers of a view by kind: by the axes that they are over.
function kindsOf(view) {
  const kinds = {};
  for (const layer of view.layers) (kinds[kindOf(layer)] ??= []).push(layer);
  const rank = kind => ORDER.includes(kind) ? ORDER.indexOf(kind) : ORDER.length;
  return Object.fromEntries(Object.entries(kinds).sort(([one], [other]) => rank(one) - rank(other)));
}

// The heads that a choice is the mean of, as [layer, head]; null stands for all.
function headsOf(layers, layer, head) {
  const chosen = layer === null ? layers : [layers[layer]];
  return chosen.flatMap(one => head === null
    ? Array.from({length: one.heads}, (_, h) => [one, h]) : head < one.heads ? [[one, head]] : []);
}

// The mean map of some heads: bins of queries by bins of keys.
function gridOf(heads) {
  const size = heads[0][0].grid.shape[1] * heads[0][0].grid.shape[2], values = new Float32Array(size);
  for (const [layer, head] of heads)
    for (let i = 0, from = head * size; i < size; i++) values[i] += layer.grid.data[from + i] / heads.length;
  return values;
}

// The keys that take most of the weight of some heads: [{place, share}].
function sinksOf(heads) {
  const [first] = heads[0];
  if (!heads.every(([layer]) => layer.key_mass)) return sinksOfGrid(first, gridOf(heads));
  const size = first.key_mass.shape[1], mass = new Float64Array(size);
  for (const [layer, head] of heads)
    for (let i = 0; i < size; i++) mass[i] += layer.key_mass.data[head * size + i];
  return largeShares(mass);
}

// The same of a map whose bins are single places.
function sinksOfGrid({rowEdges, columnEdges}, values) {
  const columns = columnEdges.length - 1;
  if (columnEdges[columns] !== columns || columns < 3) return [];
  const mass = new Float64Array(columns);
  values.forEach((weight, i) => {
    const row = Math.floor(i / columns);
    mass[i % columns] += weight * (rowEdges[row + 1] - rowEdges[row]);
  });
  return largeShares(mass);
}

function largeShares(mass) {
  const total = mass.reduce((sum, one) => sum + one, 0) || 1, sinks = [];
  mass.forEach((one, place) => {
    if (one / total > SINK) sinks.push({place, share: one / total});
  });
  return sinks.sort((one, other) => other.share - one.share);
}

// The mean of a summary over the queries of some heads; undefined where it was not recorded.
function meanOf(heads, name) {
  if (!heads.every(([layer]) => layer[name])) return undefined;
  return heads.reduce((sum, [layer, head]) => sum + (layer.means[name] ??= meansOf(layer[name]))[head], 0) / heads.length;
}

function meansOf({shape: [heads, size], data}) {
  return Array.from({length: heads}, (_, head) => data.subarray(head * size, head * size + size).reduce((sum, x) => sum + x, 0) / size);
}

// A map to show, without what is hidden: what remains of each row is scaled to shares of 1.
// {values, rows, columns: how many bins; rowEdges, columnEdges, rowAxis, columnAxis;
//  shownRows, shownColumns: which bins are shown; weight(row, column)}
function mapOf(view, heads, {withoutSpecial, withoutSinks}) {
  const [{rowEdges, columnEdges, ...layer}] = heads[0];
  const rowAxis = view.axes[layer.rows], columnAxis = view.axes[layer.columns];
  const rows = rowEdges.length - 1, columns = columnEdges.length - 1, values = gridOf(heads);
  const shownRows = [...Array(rows).keys()].filter(row => !(withoutSpecial && isSpecial(rowAxis, rowEdges, row)));
  const sinks = sinksOf(heads), aside = new Set(withoutSinks ? sinks.map(({place}) => binOf(columnEdges, place)) : []);
  const shownColumns = [...Array(columns).keys()].filter(
    column => !aside.has(column) && !(withoutSpecial && isSpecial(columnAxis, columnEdges, column)));
  if (shownColumns.length < columns) {
    for (let row = 0; row < rows; row++) {
      const rest = shownColumns.reduce((sum, column) => sum + values[row * columns + column], 0);
      for (const column of shownColumns) values[row * columns + column] /= rest || 1;
    }
  }
  return {
    values, rows, columns, rowEdges, columnEdges, rowAxis, columnAxis, shownRows, shownColumns, heads, sinks,
    isWhole: shownColumns.length === columns, weight: (row, column) => values[row * columns + column],
  };
}

// Whether a bin holds special tokens alone.
function isSpecial(axis, edges, bin) {
  for (let place = edges[bin]; place < edges[bin + 1]; place++) if (!axis.special.has(place)) return false;
  return true;
}

const hasSpecial = (axis, edges) => edges.slice(1).some((_, bin) => isSpecial(axis, edges, bin));

function binOf(edges, place) {
  let low = 0, high = edges.length - 2;
  while (low < high) {
    const middle = low + high + 1 >> 1;
    if (edges[middle] <= place) low = middle;
    else high = middle - 1;
  }
  return low;
}

// The fewest indices, largest first, that have MASS of the weight of all.
function massOf(indices, weight) {
  const order = [...indices].sort((one, other) => weight(other) - weight(one));
  const total = order.reduce((sum, i) => sum + weight(i), 0);
  let sum = 0;
  const end = order.findIndex(i => (sum += weight(i)) >= MASS * total - 1e-6);
  return total > 0 ? order.slice(0, end + 1) : [];
}

// The label of a bin: of its place, or the numbers and labels of its first and last place.
function labelOf(axis, edges, bin) {
  const first = edges[bin], last = edges[bin + 1] - 1, [one, other] = [first, last].map(place => plainLabel(axis.labels[place]));
  return first === last ? one : `${count(first + 1)}–${count(last + 1)} ${one} … ${other}`;
}

// The same for the side of a map, which has little room.
function shortLabelOf(axis, edges, bin) {
  const label = plainLabel(axis.labels[edges[bin]]);
  return edges[bin + 1] - edges[bin] === 1 ? label : `${count(edges[bin] + 1)} ${label}`;
}

// A token without its tokenizer's marks of spaces.
const plainLabel = label => label.replace(/^[Ġ▁](?=.)/u, "").replace(/^##(?=.)/, "");

// The largest recorded weights of a query: [{place, weight}], exact where bins are not.
function largestOf(heads, query) {
  const [layer, head] = heads[0];
  if (heads.length > 1 || !layer.top_keys) return [];
  const [, queries, top] = layer.top_keys.shape, from = (head * queries + query) * top;
  return Array.from({length: top}, (_, i) => ({place: layer.top_keys.data[from + i], weight: layer.top_weights.data[from + i]}))
    .filter(({weight}) => weight > 0);
}
