// Classes × concepts at one layer. Only visible cells are elements, so 400 × 160 is as fast as 4 × 8.

const matrix = (() => {
  const measures = {
    effect: { word: "effect, logits", unit: "logits", column: "effect" },
    z: { word: "effect, null spreads (z)", unit: "null spreads", column: "z" },
    score: { word: "TCAV score above its null", unit: "above its null", column: "tcav_effect" },
  };
  const { contrastWords } = marks;
  const { compare } = new Intl.Collator(); // like localeCompare, but many times faster
  const contrasts = ["random", "rest", "pair"].filter((name) => facts.columns.some((c) => c.contrast === name));
  const groups = Object.keys(marks.groupWords).filter((name) => facts.columns.some((c) => c.group === name));

  const state = {
    layer: 0, contrast: contrasts[0], measure: "effect", groups: new Set(groups), classText: "", conceptText: "", onlySignificant: false,
    rowOrder: "name", columnOrder: "concept", sortColumn: -1, size: "",
  };
  let rows = [], columns = [], top = 0, focus = { r: 0, c: 0 };
  const spare = []; // rows that a filter removed from the screen, for reuse
  let scroller, sizer, head, body, caption;

  function build(place) {
    // Start with the layer with the most significant effects; of equals, the deepest whose sign counts can be read.
    state.layer = defaultLayer();
    scroller = element("div", { class: "grid", role: "grid", "aria-labelledby": "matrix-title", "aria-describedby": "matrix-caption", onkeydown: onKey });
    sizer = element("div", { class: "grid-size", role: "presentation" });
    head = element("div", { class: "grid-head", role: "row", "aria-rowindex": "1" });
    body = element("div", { class: "grid-body", role: "rowgroup" });
    caption = element("p", { class: "muted small", id: "matrix-caption", "aria-live": "polite" });
    sizer.append(element("div", { role: "rowgroup", class: "grid-headgroup" }, head), body);
    scroller.append(sizer);
    scroller.addEventListener("click", (event) => onCell(event, (node) => open(store.cell(node.at.row))));
    scroller.addEventListener("scroll", () => requestAnimationFrame(paint), { passive: true });
    new ResizeObserver(() => paint()).observe(scroller);
    let shownControls = controls();
    const saving = downloads.line("Classes by concepts", { PNG: () => pictures.ofChart(picture()), SVG: () => pictures.ofChart(picture()), CSV: () => downloads.csvOfObjects(charts.figures(shownCells())) });
    place.replaceChildren(shownControls, caption, scroller, saving, element("div", { class: "legends" }, marks.statusLegend(), scaleLegend()));
    address.part("matrix", readState, (values) => {
      applyState(values);
      const fresh = controls();
      shownControls.replaceWith(fresh);
      shownControls = fresh;
      update();
    });
    update();
  }

  const start = { measure: "effect", rowOrder: "name", columnOrder: "concept", size: "", classText: "", conceptText: "" };
  const namesOf = { measure: "colour", rowOrder: "classes", columnOrder: "concepts", size: "cells", classText: "find", conceptText: "find-concepts" };

  // What is not as at the start, for the address.
  function readState() {
    const found = {};
    for (const [key, name] of Object.entries(namesOf)) if (state[key] !== start[key]) found[name] = state[key];
    if (state.layer !== defaultLayer()) found.layer = facts.layers[state.layer];
    if (state.contrast !== contrasts[0]) found.against = state.contrast;
    if (state.groups.size < groups.length) found.kinds = [...state.groups].join(",");
    if (state.onlySignificant) found.significant = "1";
    if (state.rowOrder === "column" && state.sortColumn >= 0) found.by = `${facts.columns[state.sortColumn].concept}|${facts.columns[state.sortColumn].against}`;
    return found;
  }

  const options = { measure: Object.keys(measures), rowOrder: ["name", "alphabet", "strongest", "count", "column"], columnOrder: ["concept", "kind", "strongest"], size: ["", "numbers", "small"] };

  // A value that this report does not know counts as missing.
  function applyState(values) {
    for (const [key, name] of Object.entries(namesOf)) {
      const value = values[name] ?? start[key];
      state[key] = !options[key] || options[key].includes(value) ? value : start[key];
    }
    const layer = facts.layers.indexOf(values.layer);
    state.layer = layer < 0 ? defaultLayer() : layer;
    state.contrast = contrasts.includes(values.against) ? values.against : contrasts[0];
    state.groups = new Set(values.kinds === undefined ? groups : values.kinds.split(",").filter((name) => groups.includes(name)));
    state.onlySignificant = values.significant === "1";
    state.sortColumn = values.by ? store.findColumn(...values.by.split("|")) : -1;
  }

  let opened = null;
  function defaultLayer() {
    if (opened !== null) return opened;
    const found = facts.layers.map((name, l) => ({ l, answer: name === "answer", significant: 0, readable: 0 }));
    const [layers, status, degenerate] = [store.field("layer"), store.field("status"), store.field("degenerate")];
    for (let row = 0; row < facts.rows; row++) {
      found[layers[row]].significant += status[row] <= marks.LOWERS ? 1 : 0;
      found[layers[row]].readable += degenerate[row] === 1 ? -1 : 1;
    }
    // The answer is no layer, and stands in only for a run without any.
    opened = d3.greatest(found, (a, b) => b.answer - a.answer || a.significant - b.significant || (a.readable > 0) - (b.readable > 0) || a.l - b.l).l;
    return opened;
  }

  function controls() {
    const choose = (label, options, value, onchange) => {
      const select = element("select", { onchange: () => { onchange(select.value); changed(); } }, ...options.map(([v, t]) => element("option", { value: v, selected: v === value }, t)));
      return element("label", { class: "field" }, element("span", {}, label), select);
    };
    const changed = () => { update(); address.write("matrix"); };
    const find = (label, key) => {
      const input = element("input", { type: "search", placeholder: "filter…", autocomplete: "off", value: state[key], oninput: () => { state[key] = input.value.trim().toLowerCase(); changed(); } });
      return element("label", { class: "field" }, element("span", {}, label), input);
    };
    const layers = element("fieldset", { class: "segments" }, element("legend", {}, "Layer"), ...facts.layers.map((name, l) => {
      const input = element("input", { type: "radio", name: "matrix-layer", value: String(l), checked: l === state.layer, onchange: () => { state.layer = l; changed(); } });
      return element("label", {}, input, element("span", {}, name));
    }));
    const kinds = element("fieldset", { class: "checks" }, element("legend", {}, "Concepts that are"), ...groups.map((name) => {
      const input = element("input", { type: "checkbox", checked: state.groups.has(name), onchange: () => { state.groups[input.checked ? "add" : "delete"](name); changed(); } });
      return element("label", {}, input, marks.groupWords[name]);
    }), significantBox());
    return element("div", { class: "controls" },
      layers,
      contrasts.length > 1 ? choose("Against", contrasts.map((c) => [c, contrastWords[c]]), state.contrast, (v) => (state.contrast = v)) : null,
      choose("Colour shows", Object.entries(measures).map(([v, m]) => [v, m.word]), state.measure, (v) => (state.measure = v)),
      choose("Classes by", [["name", "as listed"], ["alphabet", "name"], ["strongest", "strongest effect"], ["count", "significant effects"], ["column", "the chosen concept"]], state.rowOrder, (v) => (state.rowOrder = v)),
      choose("Concepts by", [["concept", "name, then kind"], ["kind", "kind, then name"], ["strongest", "strongest effect"]], state.columnOrder, (v) => (state.columnOrder = v)),
      choose("Squares", [["", "as they fit"], ["numbers", "with numbers"], ["small", "small"]], state.size, (v) => (state.size = v)),
      find("Find classes", "classText"), find("Find concepts", "conceptText"), kinds,
    );
  }

  function significantBox() {
    const input = element("input", { type: "checkbox", checked: state.onlySignificant, onchange: () => { state.onlySignificant = input.checked; update(); address.write("matrix"); } });
    return element("label", {}, input, "with a significant effect");
  }

  function scaleLegend() {
    return element("div", { class: "scale", "aria-hidden": "true" }, "lowers", element("span", { class: "ramp" }), "raises", element("span", { class: "muted" }, " · pale: not significant"));
  }

  const rowOf = (k, c) => store.find(k, c, state.layer);

  // Value of the strongest colour: the 98th percentile at this layer, independent of the filters.
  const tops = new Map();
  function topValue() {
    const key = `${state.layer} ${state.contrast} ${state.measure}`;
    if (!tops.has(key)) {
      const [values, status, layer, column] = [measures[state.measure].column, "status", "layer", "column"].map((name) => store.field(name));
      const counts = facts.columns.map((c) => c.contrast === state.contrast);
      const sizes = values.filter((value, row) => layer[row] === state.layer && counts[column[row]] && marks.readable(status[row]) && Number.isFinite(value)).map(Math.abs).sort();
      tops.set(key, sizes.length ? d3.quantileSorted(sizes, 0.98) || 1 : 1);
    }
    return tops.get(key);
  }

  // Filter and sort the rows and columns, then paint.
  function update() {
    const status = store.field("status");
    const wantedColumns = facts.columns.map((_, c) => c).filter((c) => {
      const column = facts.columns[c];
      return column.contrast === state.contrast && state.groups.has(column.group) && `${column.concept} ${column.against}`.toLowerCase().includes(state.conceptText);
    });
    const wantedClasses = facts.classes.map((_, k) => k).filter((k) => facts.classes[k].toLowerCase().includes(state.classText));
    const rowStrongest = new Float64Array(facts.classes.length), rowCount = new Uint32Array(facts.classes.length);
    const columnStrongest = new Float64Array(facts.columns.length), columnCount = new Uint32Array(facts.columns.length);
    const values = store.field(measures[state.measure].column);
    top = topValue();
    for (const k of wantedClasses) for (const c of wantedColumns) {
      const row = rowOf(k, c);
      if (row >= 0 && status[row] <= marks.LOWERS && Number.isFinite(values[row])) {
        const size = Math.abs(values[row]);
        rowStrongest[k] = Math.max(rowStrongest[k], size); rowCount[k]++;
        columnStrongest[c] = Math.max(columnStrongest[c], size); columnCount[c]++;
      }
    }
    rows = wantedClasses.filter((k) => !state.onlySignificant || rowCount[k]);
    columns = wantedColumns.filter((c) => !state.onlySignificant || columnCount[c]);
    const byName = (a, b) => compare(facts.classes[a], facts.classes[b]);
    const columnValue = (k) => { const row = state.sortColumn < 0 ? -1 : rowOf(k, state.sortColumn); return row < 0 || !Number.isFinite(values[row]) ? -Infinity : values[row]; };
    if (state.rowOrder === "alphabet") rows.sort(byName);
    if (state.rowOrder === "strongest") rows.sort((a, b) => rowStrongest[b] - rowStrongest[a] || a - b);
    if (state.rowOrder === "count") rows.sort((a, b) => rowCount[b] - rowCount[a] || a - b);
    if (state.rowOrder === "column") rows.sort((a, b) => (columnValue(b) > columnValue(a) ? 1 : columnValue(b) < columnValue(a) ? -1 : a - b));
    const text = (c) => facts.columns[c];
    const kindThen = (a, b) => marks.kindRank(text(a).kind) - marks.kindRank(text(b).kind);
    const nameThen = (a, b) => compare(text(a).name, text(b).name) || compare(text(a).against, text(b).against);
    if (state.columnOrder === "concept") columns.sort((a, b) => nameThen(a, b) || kindThen(a, b));
    if (state.columnOrder === "kind") columns.sort((a, b) => kindThen(a, b) || nameThen(a, b));
    if (state.columnOrder === "strongest") columns.sort((a, b) => columnStrongest[b] - columnStrongest[a] || a - b);
    focus = { r: Math.min(focus.r, Math.max(0, rows.length - 1)), c: Math.min(focus.c, Math.max(0, columns.length - 1)) };
    const found = d3.sum(rows, (k) => rowCount[k]);
    caption.textContent = rows.length && columns.length
      ? `${words.whole(rows.length)} classes × ${words.whole(columns.length)} concepts at ${facts.layers[state.layer]}; ${words.whole(found)} significant effects. Choose a square for its evidence, a concept's heading to sort by it.`
      : "No class or no concept matches: widen the filters.";
    scroller.setAttribute("aria-rowcount", String(rows.length + 1));
    scroller.setAttribute("aria-colcount", String(columns.length + 1));
    paint();
  }

  // Cells are as wide as the place allows: at least a mark, at most a mark and a number side by side.
  function geometry() {
    const labels = scroller.clientWidth < 520 ? 104 : 176;
    const fitting = Math.floor((scroller.clientWidth - labels) / Math.max(1, columns.length));
    const width = { numbers: 84, small: 26 }[state.size] ?? Math.max(26, Math.min(84, fitting));
    const numbers = width >= 40;
    return { labels, width, numbers, height: numbers ? 42 : 26, upright: width < 74, stacked: width < 66, head: width < 74 ? 170 : 92 };
  }

  function paint() {
    const hadFocus = body.contains(document.activeElement);
    const heading = head.contains(document.activeElement) ? document.activeElement.dataset.column : null;
    const g = geometry();
    const [left, y] = [scroller.scrollLeft, scroller.scrollTop];
    const visible = (from, length, size, count) => [Math.max(0, Math.floor(from / size) - 1), Math.min(count, Math.ceil((from + length) / size) + 1)];
    const [c0, c1] = visible(left, scroller.clientWidth, g.width, columns.length);
    const [r0, r1] = visible(y, scroller.clientHeight || 600, g.height, rows.length);
    // The keyboard's place stays among the drawn cells, so that it is never lost while the grid scrolls.
    focus = { r: Math.max(r0, Math.min(r1 - 1, focus.r)), c: Math.max(c0, Math.min(c1 - 1, focus.c)) };
    sizer.style.width = `${g.labels + columns.length * g.width}px`;
    sizer.style.height = `${g.head + rows.length * g.height}px`;
    scroller.style.setProperty("--labels", `${g.labels}px`);
    scroller.style.setProperty("--cell", `${g.width - 2}px`);
    scroller.classList.toggle("upright", g.upright);
    scroller.classList.toggle("stacked", g.stacked);
    head.style.height = `${g.head}px`;
    head.replaceChildren(element("div", { class: "corner", role: "columnheader", "aria-colindex": "1" }, facts.layers[state.layer] ?? ""), ...d3.range(c0, c1).map((i) => headCell(i, g)));
    while (body.childElementCount > r1 - r0) { spare.push(body.lastElementChild); body.lastElementChild.remove(); }
    for (let r = r0; r < r1; r++) drawRow(body.children[r - r0] ?? body.appendChild(spare.pop() ?? newRow()), r, c0, c1, g);
    if (hadFocus) focusedCell()?.focus({ preventScroll: true });
    if (heading !== null) (headingOf(heading) ?? focusedCell())?.focus({ preventScroll: true });
  }

  const enter = () => focusedCell()?.focus();

  const focusedCell = () => [...body.querySelectorAll(".cell")].find((node) => node.at.r === focus.r && node.at.c === focus.c);
  // Whether another concept begins here: a thin line groups the kinds of a concept.
  const starts = (i) => i > 0 && facts.columns[columns[i]].name !== facts.columns[columns[i - 1]].name && state.columnOrder === "concept";

  function headCell(i, g) {
    const column = facts.columns[columns[i]];
    const sorted = state.rowOrder === "column" && state.sortColumn === columns[i];
    const against = column.contrast === "random" ? "" : marks.against(column);
    const button = element("button", { type: "button", tabindex: "-1", "data-column": String(i), "data-tip": `${column.concept} ${against}: sort the classes by it`, onclick: () => sortBy(columns[i]) },
      element("span", { class: "head-name" }, marks.kindDot(column.kind), column.name), element("span", { class: "head-kind" }, column.kind), against ? element("span", { class: "head-kind" }, against) : null);
    return element("div", { class: `head-cell${starts(i) ? " starts" : ""}`, role: "columnheader", "aria-colindex": String(i + 2), "aria-sort": sorted ? "descending" : null, style: `left:${g.labels + i * g.width}px;width:${g.width}px` }, button);
  }

  function sortBy(c) {
    state.rowOrder = "column";
    state.sortColumn = c;
    document.querySelectorAll("#matrix-place option").forEach((option) => { if (option.value === "column") option.selected = true; });
    update();
    address.write("matrix");
  }

  // Hundreds of cells are visible. Rows and cells are created once, then updated where they differ: style and layout of a
  // new element cost ten times as much as a new class on an existing one.
  function newRow() {
    const row = element("div", { class: "grid-row", role: "row" },
      element("div", { class: "row-head", role: "rowheader", "aria-colindex": "1" }, element("a", { tabindex: "-1" })),
      element("div", { class: "grid-skip", role: "presentation" })); // the columns before the first drawn one
    row.link = row.querySelector("a");
    row.skip = row.lastElementChild;
    row.cells = [];
    return row;
  }

  function drawRow(row, r, c0, c1, g) {
    const name = facts.classes[rows[r]];
    change(row, "aria-rowindex", r + 2);
    change(row, "style", `top:${r * g.height}px;height:${g.height}px`);
    if (row.link.textContent !== name) row.link.textContent = name;
    change(row.link, "href", routes.ofClass(name));
    change(row.link, "data-tip", name);
    change(row.skip, "style", `width:${c0 * g.width}px`);
    while (row.cells.length > c1 - c0) row.cells.pop().remove();
    while (row.cells.length < c1 - c0) {
      const cell = document.createElement("div");
      cell.setAttribute("role", "gridcell");
      cell.tip = () => (cell.at?.row >= 0 ? marks.sentence(store.cell(cell.at.row)) : "");
      row.cells.push(row.appendChild(cell));
    }
    row.cells.forEach((cell, j) => drawCell(cell, r, c0 + j, g));
  }

  function change(node, name, value) {
    if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }

  // Cells of one look share a class instead of having inline styles. The tip is made on hover.
  function drawCell(node, r, i, g) {
    const row = rowOf(rows[r], columns[i]);
    node.at = { r, c: i, row };
    change(node, "aria-colindex", i + 2);
    change(node, "tabindex", r === focus.r && i === focus.c ? 0 : -1);
    const start = starts(i) ? " starts" : "";
    if (row < 0) {
      show(node, `cell empty${start}`, "not tested", -1, "");
      return;
    }
    const status = store.field("status")[row];
    const value = store.field(measures[state.measure].column)[row];
    const readable = marks.readable(status) && Number.isFinite(value);
    // In steps of 4, matching the classes in page.css.
    const strength = readable ? 4 * Math.round((Math.min(1, Math.abs(value) / top) * (status <= marks.LOWERS ? 88 : 26)) / 4) : 0;
    const look = `cell ${marks.statuses[status].key} ${value < 0 ? "down" : "up"} s${strength}${strength >= 66 ? " strong" : ""}${start}`;
    const text = g.stacked ? words.narrow(value) : words.short(value);
    const label = `${text} ${measures[state.measure].unit}, ${marks.statuses[status].word}, q ${words.probability(store.value(row, "q"))}`;
    show(node, look, label, status === marks.NOT_SHOWN ? -1 : status, g.numbers && marks.readable(status) ? text : "");
  }

  // `mark`: a status, or -1 for no mark.
  function show(node, look, label, mark, text) {
    if (node.className !== look) node.className = look;
    change(node, "aria-label", label);
    const inside = `${mark} ${text}`;
    if (node.inside === inside) return;
    node.inside = inside;
    node.replaceChildren(...(mark < 0 ? [] : [marks.statusMark(mark, { label: false })]), ...(text ? [element("span", {}, text)] : []));
  }

  function onCell(event, act) {
    const node = event.target.closest(".cell");
    if (node && node.at.row >= 0) act(node);
  }

  function open(cell) {
    location.hash = routes.cell(cell);
  }

  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], PageUp: [-10, 0], PageDown: [10, 0], Home: [0, -1e9], End: [0, 1e9] };

  function onKey(event) {
    const heading = event.target.closest(".head-cell button");
    if (heading) onHeadingKey(event, Number(heading.dataset.column));
    const at = event.target.closest("[role=gridcell]");
    if (!at) return;
    if (event.key === "ArrowUp" && at.at.r === 0) {
      event.preventDefault();
      headingOf(at.at.c)?.focus({ preventScroll: true });
      return;
    }
    if (event.key === "Enter" || event.key === " ") {
      const row = rowOf(rows[focus.r], columns[focus.c]);
      if (row >= 0) { event.preventDefault(); open(store.cell(row)); }
    } else if (event.key in moves) {
      event.preventDefault();
      const [dr, dc] = moves[event.key];
      focus = { r: at.at.r + dr, c: at.at.c + dc };
      focus = { r: Math.max(0, Math.min(rows.length - 1, focus.r)), c: Math.max(0, Math.min(columns.length - 1, focus.c)) };
      reveal();
    }
  }

  const headingOf = (c) => head.querySelector(`button[data-column="${c}"]`);

  // Arrow up in the first row moves to the headings, which sort. Left and right move along them, down goes back.
  function onHeadingKey(event, c) {
    if (!["ArrowLeft", "ArrowRight", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    const to = Math.max(0, Math.min(columns.length - 1, c + { ArrowLeft: -1, ArrowRight: 1, ArrowDown: 0 }[event.key]));
    focus = { r: 0, c: to };
    reveal();
    if (event.key !== "ArrowDown") headingOf(to)?.focus({ preventScroll: true });
  }

  // Scroll the focused cell out from under the sticky headings, paint, and give it the keyboard focus.
  function reveal() {
    const g = geometry();
    const x = focus.c * g.width, y = focus.r * g.height;
    const [roomX, roomY] = [scroller.clientWidth - g.labels, scroller.clientHeight - g.head];
    if (x < scroller.scrollLeft) scroller.scrollLeft = x;
    if (x + g.width > scroller.scrollLeft + roomX) scroller.scrollLeft = x + g.width - roomX;
    if (y < scroller.scrollTop) scroller.scrollTop = y;
    if (y + g.height > scroller.scrollTop + roomY) scroller.scrollTop = y + g.height - roomY;
    paint();
    focusedCell()?.focus({ preventScroll: true });
  }

  // What the filters leave: for paper, and for saving.
  const shown = () => ({
    classes: rows, columns, title: `${measures[state.measure].word} at ${facts.layers[state.layer]}, ${marks.against({ contrast: state.contrast, against: "another concept" })}; ▲ raises, ▼ lowers: significant`,
    valueOf(k, c) {
      const row = rowOf(k, c);
      if (row < 0) return "";
      const status = store.field("status")[row];
      return `${{ [marks.RAISES]: "▲ ", [marks.LOWERS]: "▼ " }[status] ?? ""}${words.short(store.field(measures[state.measure].column)[row])}`;
    },
  });

  const shownCells = () => rows.flatMap((k) => columns.map((c) => rowOf(k, c))).filter((row) => row >= 0).map((row) => store.cell(row));

  // The matrix as one SVG picture, with every class and concept that the filters leave.
  function picture() {
    const [side, left, up] = [26, 170, 190];
    const values = store.field(measures[state.measure].column), status = store.field("status");
    const part = (tag, attributes, text) => {
      const node = document.createElementNS(SVG, tag);
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
      if (text) node.textContent = text;
      return node;
    };
    const svg = part("svg", { viewBox: `0 0 ${left + columns.length * side + 60} ${up + rows.length * side + 10}`, width: left + columns.length * side + 60, height: up + rows.length * side + 10, class: "plot" });
    columns.forEach((c, i) => svg.append(part("text", { x: left + i * side + side / 2, y: up - 8, "text-anchor": "start", transform: `rotate(-60 ${left + i * side + side / 2} ${up - 8})`, style: "fill: var(--ink)" }, facts.columns[c].concept)));
    rows.forEach((k, r) => {
      svg.append(part("text", { x: left - 8, y: up + r * side + 0.65 * side, "text-anchor": "end", style: "fill: var(--ink)" }, facts.classes[k]));
      columns.forEach((c, i) => {
        const row = rowOf(k, c);
        if (row < 0) return;
        const found = status[row] <= marks.LOWERS;
        const strength = marks.readable(status[row]) && Number.isFinite(values[row]) ? Math.round(Math.min(1, Math.abs(values[row]) / top) * (found ? 88 : 26)) : 0;
        svg.append(part("rect", { x: left + i * side + 1, y: up + r * side + 1, width: side - 2, height: side - 2, rx: 3, style: `fill: color-mix(in oklab, var(--${values[row] < 0 ? "lowers" : "raises"}) ${strength}%, var(--surface)); stroke: var(--line)` }));
        if (found) svg.append(part("text", { x: left + i * side + side / 2, y: up + r * side + 0.65 * side, "text-anchor": "middle", style: `fill: ${strength >= 66 ? "#000" : "var(--ink)"}` }, values[row] < 0 ? "▼" : "▲"));
      });
    });
    scroller.after(svg); // colours are read from the page
    requestAnimationFrame(() => svg.remove());
    return svg;
  }

  return { build, defaultLayer, enter, shown };
})();
