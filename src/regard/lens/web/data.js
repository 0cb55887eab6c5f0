// Views, as regard.lens.files writes them: npz files and JSON.
//
// A view: {title, notes, axes: {name: axis}, layers, attributions, bytes}
// An axis: {name, kind, labels, special: a Set of places, rightToLeft}
// A layer: {path, rows, columns (names of axes), rowEdges, columnEdges, heads, error, means (by name, once they are asked for),
//           grid, entropy, distance, key_mass, top_keys, top_weights (each {shape, data} or undefined)}

const FORMAT = "regard view 1";
const ARRAY_TYPES = {
  "|u1": Uint8Array, "<u2": Uint16Array, "<u4": Uint32Array, "<i4": Int32Array, "<i8": BigInt64Array,
  "<f4": Float32Array, "<f8": Float64Array,
};

function bytesOfBase64(text) {
  const characters = atob(text), bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

// A file that was opened or dropped.
async function readView(bytes) {
  const isZip = bytes[0] === 0x50 && bytes[1] === 0x4b;
  return isZip ? readNpz(bytes) : readJson(bytes);
}

function readJson(bytes) {
  const about = JSON.parse(new TextDecoder().decode(bytes));
  const arrays = {};
  for (const [name, nested] of Object.entries(about.arrays)) {
    const shape = [];
    for (let part = nested; Array.isArray(part); part = part[0]) shape.push(part.length);
    arrays[name] = {shape, data: Float64Array.from(nested.flat(Infinity))};
  }
  return viewOf(about, arrays, bytes);
}

async function readNpz(bytes) {
  const entries = zipEntries(bytes);
  const contents = await Promise.all(entries.map(entry => entryContent(bytes, entry)));
  const arrays = {};
  entries.forEach(({name}, i) => arrays[name.replace(/\.npy$/, "")] = npyArray(contents[i]));
  return viewOf(JSON.parse(new TextDecoder().decode(arrays.about.data)), arrays, bytes);
}

// The central directory of a zip file, at its end, has the sizes; the local headers need not.
function zipEntries(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Error("the file is cut short");
  const entries = [];
  let at = view.getUint32(end + 16, true);
  for (let count = view.getUint16(end + 10, true); count; count--) {
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map(offset => view.getUint16(at + offset, true));
    const header = view.getUint32(at + 42, true);
    entries.push({
      name: new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength)),
      deflated: view.getUint16(at + 10, true) === 8,
      size: view.getUint32(at + 20, true),
      start: header + 30 + view.getUint16(header + 26, true) + view.getUint16(header + 28, true),
    });
    at += 46 + nameLength + extraLength + commentLength;
  }
  return entries;
}

async function entryContent(bytes, {start, size, deflated}) {
  const content = bytes.slice(start, start + size);
  if (!deflated) return content;
  const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// An array of NumPy's npy format, in C order.
function npyArray(content) {
  const isFirst = content[6] === 1;
  const view = new DataView(content.buffer);
  const start = (isFirst ? 10 : 12) + (isFirst ? view.getUint16(8, true) : view.getUint32(8, true));
  const header = new TextDecoder().decode(content.subarray(isFirst ? 10 : 12, start));
  const type = header.match(/'descr': *'([^']*)'/)[1];
  if (!ARRAY_TYPES[type] || header.includes("'fortran_order': True")) throw new Error(`arrays of ${type} are not read`);
  const shape = header.match(/'shape': *\(([^)]*)\)/)[1].split(",").filter(part => part.trim()).map(Number);
  const data = new ARRAY_TYPES[type](content.buffer.slice(start));
  return {shape, data: type === "<i8" ? Float64Array.from(data, Number) : data};
}

function viewOf(about, arrays, bytes) {
  if (about.format !== FORMAT) throw new Error(`its format is ${about.format}; this page reads ${FORMAT}`);
  const array = (layer, name) => {
    const stored = arrays[`${layer}.${name}`];
    if (!stored) return undefined;
    const {shape, data} = stored, [low, step] = about.scales?.[`${layer}.${name}`] ?? [0, 1];
    const numbers = new Float32Array(data.length);  // keys too: exact up to 16 million
    for (let i = 0; i < numbers.length; i++) numbers[i] = low + step * data[i];
    return {shape, data: numbers};
  };
  const axes = {};
  for (const {name, kind, labels, special} of about.axes)
    axes[name] = {name, kind, labels, special: new Set(special), rightToLeft: isRightToLeft(labels)};
  const layers = about.layers.map((layer, i) => ({
    path: layer.path, rows: layer.rows, columns: layer.columns, error: layer.error,
    rowEdges: layer.row_edges, columnEdges: layer.column_edges, heads: array(i, "grid").shape[0], means: {},
    ...Object.fromEntries(["grid", "entropy", "distance", "key_mass", "top_keys", "top_weights"]
      .map(name => [name, array(i, name)])),
  }));
  return {title: about.title, notes: about.notes, axes, layers, attributions: about.attributions, bytes};
}

function isRightToLeft(labels) {
  const text = labels.slice(0, 2000).join("");
  const count = letters => (text.match(letters) ?? []).length;
  return count(/[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/g) > count(/[A-Za-z\u00c0-\u024f\u0370-\u052f]/g);
}
