// The scores: typed columns, unpacked once, and an index from (class, column, layer) to the row.

const facts = JSON.parse(document.getElementById("facts").textContent);

const store = (() => {
  let fields = new Map();
  let videos = new Map();
  let index = null;
  const HEIGHTS = 31; // as in vtcav_ray/report/packed_tables.py

  function bytesOf(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const raw = atob(text);
    const bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return bytes;
  }

  // Columns are stored plane by plane, lowest bytes first. See vtcav_ray/report/packed_tables.py.
  function joinPlanes(bytes, at, rows, width) {
    const joined = new Uint8Array(rows * width);
    for (let plane = 0; plane < width; plane++) {
      const from = at + plane * rows;
      for (let i = 0, to = plane; i < rows; i++, to += width) joined[to] = bytes[from + i];
    }
    return joined.buffer;
  }

  async function columnsOf(id, { rows, fields: described }) {
    const place = document.getElementById(id);
    const stream = new Blob([bytesOf(place.textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    place.remove(); // the text is no longer needed and may take 10 MB
    const columns = new Map();
    let at = 0;
    for (const [name, type] of described) {
      const width = type === "u8" ? 1 : 4;
      const buffer = joinPlanes(bytes, at, rows, width);
      columns.set(name, type === "u8" ? new Uint8Array(buffer) : type === "u32" ? new Uint32Array(buffer) : new Float32Array(buffer));
      at += width * rows;
    }
    return columns;
  }

  async function unpack() {
    fields = await columnsOf("cells", facts);
    index = new Int32Array(facts.classes.length * facts.columns.length * facts.layers.length).fill(-1);
    const [classes, columns, layers] = [fields.get("class"), fields.get("column"), fields.get("layer")];
    for (let row = 0; row < facts.rows; row++) index[place3(classes[row], columns[row], layers[row])] = row;
    videos = await columnsOf("videos", facts.videos);
  }

  // The class's videos in one cell, highest sensitivity first: [{video, sensitivity}].
  function videosOf(row) {
    const cells = videos.get("cell");
    const found = [];
    for (let i = d3.bisectLeft(cells, row); i < cells.length && cells[i] === row; i++) {
      found.push({ video: facts.videos.videos[videos.get("video")[i]], sensitivity: videos.get("sensitivity")[i] });
    }
    return found.filter((v) => Number.isFinite(v.sensitivity)).sort((a, b) => b.sensitivity - a.sensitivity);
  }

  // The nulls are unpacked when the first cell's evidence is opened.
  let unpackedNulls = null;
  const nulls = () => (unpackedNulls ??= columnsOf("nulls", facts.nulls));

  // The bars of a cell's null for `effect` (in logits) or `score`: [{x1, x2, y}], y up to 1. Empty: not kept, or no test.
  async function nullBars(row, name) {
    const columns = await nulls();
    if (row >= facts.nulls.rows) return [];
    const unit = columns.get("unit")[row];
    const count = facts.nulls.bins[name];
    const edge = name === "effect" ? (i) => ((2 * i) / count - 1) * facts.nulls.reach * unit : (i) => i / count;
    const bars = d3.range(count).map((i) => ({ x1: edge(i), x2: edge(i + 1), y: columns.get(`${name}${i}`)[row] / HEIGHTS }));
    return bars.filter((bar) => bar.y > 0 && Number.isFinite(bar.x1));
  }

  const place3 = (k, c, l) => (k * facts.columns.length + c) * facts.layers.length + l;

  // The row, or -1 if this class was not tested with this column at this layer.
  const find = (k, c, l) => index[place3(k, c, l)];

  // A value: text for a text column, else a number.
  function value(row, name) {
    const stored = fields.get(name)[row];
    return name in facts.texts ? facts.texts[name][stored] : stored;
  }

  // All values of one row that a chart needs.
  function cell(row) {
    const column = facts.columns[fields.get("column")[row]];
    return {
      row,
      k: fields.get("class")[row],
      c: fields.get("column")[row],
      l: fields.get("layer")[row],
      className: facts.classes[fields.get("class")[row]],
      layer: facts.layers[fields.get("layer")[row]],
      column,
      kind: column.kind,
      status: fields.get("status")[row],
      degenerate: value(row, "degenerate") === 1,
      effect: value(row, "effect"),
      low: value(row, "ci_low"),
      high: value(row, "ci_high"),
      nullSd: value(row, "null_sd"),
      z: value(row, "z"),
      q: value(row, "q"),
      share: value(row, "share_of_margin"),
      patch: fields.has("effect_patch") ? value(row, "effect_patch") : NaN,
      score: value(row, "tcav_score"),
      scoreLow: value(row, "tcav_ci_low"),
      scoreHigh: value(row, "tcav_ci_high"),
      scoreNull: value(row, "tcav_null_mean"),
      scoreNullSd: value(row, "tcav_null_sd"),
      accuracy: value(row, "held_out_accuracy"),
      nullAccuracy: value(row, "null_accuracy"),
      stability: value(row, "stability"),
    };
  }

  const names = () => facts.fields.map(([name]) => name).filter((name) => !["class", "column", "layer", "status"].includes(name));

  const columnNumber = new Map(facts.columns.map((c, i) => [`${c.concept}\n${c.against}`, i]));
  const findColumn = (concept, against) => columnNumber.get(`${concept}\n${against}`) ?? -1;

  return { unpack, columnsOf, find, value, cell, videosOf, nullBars, field: (name) => fields.get(name), has: (name) => fields.has(name), names, findColumn };
})();
