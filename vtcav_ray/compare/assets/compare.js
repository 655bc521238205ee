// The comparison's table with filters and sorting, and the selected effect over the runs.

const facts = JSON.parse(document.getElementById("facts").textContent);
const rows = facts.rows.map((values) => Object.fromEntries(facts.columns.map((name, i) => [name, values[i]])));
const MANY = 200;
const state = { text: "", layer: "", moved: rows.some((row) => row.moved), sort: "change", all: false, chosen: null };

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

// The difference of two equal sums is only rounding error.
const number = (value, digits = 3) => (value === null ? "–" : Math.abs(value) < 1e-9 ? "0" : (value < 0 ? "−" : "+") + Number(Math.abs(value).toPrecision(digits)).toString());
const share = (value) => (value === null ? "–" : value.toFixed(2));
const chance = (value) => (value === null ? "–" : value < 0.001 ? "< 0.001" : value.toFixed(3));
const nameOf = (row) => `${row.class} × ${row.concept} against ${row.against}, ${row.layer}`;
const steps = facts.names.length - 1;

const columns = [
  ["class", "Class", (r) => r.class], ["concept", "Concept", (r) => `${r.concept}${r.against === "random" ? "" : ` against ${r.against}`}`], ["layer", "Layer", (r) => r.layer],
  ...(steps > 1 ? [["step", "Step", (r) => `${facts.names[r.step]} → ${facts.names[r.step + 1]}`]] : []),
  ["effect_a", "Effect before", (r) => number(r.effect_a)], ["effect_b", "after", (r) => number(r.effect_b)],
  ["change", "Change", (r) => number(r.change)], ["ci_low", "95 % interval", (r) => `${number(r.ci_low)} … ${number(r.ci_high)}`],
  ["q", "q", (r) => chance(r.q)], ["tcav_score_change", "TCAV score", (r) => `${share(r.tcav_score_a)} → ${share(r.tcav_score_b)}`], ["paired", "Videos", (r) => (r.paired ? "the same" : "different")],
];
const figures = new Set(["effect_a", "effect_b", "change", "ci_low", "q", "tcav_score_change"]);

// The page opens on the largest significant change, or the largest of all if none is.
const bySize = (a, b) => Number(b.moved) - Number(a.moved) || Math.abs(b.change ?? 0) - Math.abs(a.change ?? 0);
const largest = d3.least(rows, bySize);

const chart = element("div", { id: "chart" });
const caption = element("p", { class: "muted small", "aria-live": "polite" });
const body = element("tbody");
const more = element("button", { type: "button", onclick: () => { const at = body.children.length; state.all = true; draw(); body.children[at]?.querySelector("button").focus(); } });
const find = element("input", { type: "search", placeholder: "filter…", autocomplete: "off", oninput: () => { state.text = find.value.trim().toLowerCase(); draw(); } });
const layer = element("select", { onchange: () => { state.layer = layer.value; draw(); } }, element("option", { value: "" }, "all"), ...new Set(rows.map((r) => r.layer)).values().map((name) => element("option", { value: name }, name)));
const onlyMoved = element("input", { type: "checkbox", checked: state.moved, onchange: () => { state.moved = onlyMoved.checked; draw(); } });
const heads = new Map(columns.map(([name, title]) => [name, element("th", { scope: "col", class: figures.has(name) ? "n" : null }, element("button", { type: "button", class: "quiet", onclick: () => { state.sort = name; draw(); } }, title))]));

function order(a, b) {
  const [x, y] = [a[state.sort], b[state.sort]];
  if (typeof x === "string") return x.localeCompare(y);
  if (state.sort === "q") return (x ?? 2) - (y ?? 2);
  return Math.abs(y ?? 0) - Math.abs(x ?? 0);
}

function draw() {
  const shown = rows.filter((r) => (!state.moved || r.moved) && (!state.layer || r.layer === state.layer) && nameOf(r).toLowerCase().includes(state.text)).sort(order);
  const first = state.all ? shown : shown.slice(0, MANY);
  for (const [name, head] of heads) head.toggleAttribute("aria-sort", false), name === state.sort && head.setAttribute("aria-sort", name === "q" || typeof rows[0]?.[name] === "string" ? "ascending" : "descending");
  body.replaceChildren(...first.map((row) => element("tr", { class: row.moved ? "moved" : null }, ...columns.map(([name, , text], i) => (i === 0
    ? element("th", { scope: "row" }, element("button", { type: "button", class: "quiet", onclick: () => choose(row) }, text(row)))
    : element("td", { class: figures.has(name) ? "n" : null }, text(row)))))));
  caption.textContent = shown.length ? `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} comparisons. Choose a class's name to see its effect over the runs.` : "Nothing matches: widen the filters.";
  more.hidden = first.length === shown.length;
  more.textContent = `Show all ${shown.length.toLocaleString("en")}`;
  if (!state.chosen && shown.length) choose(largest);
}

// The selected effect in each run, and the interval of each step's change, drawn relative to the step's start.
function choose(row) {
  state.chosen = row;
  const same = rows.filter((r) => nameOf(r) === nameOf(row)).sort((a, b) => a.step - b.step);
  const points = [{ at: same[0].step, effect: same[0].effect_a }, ...same.map((r) => ({ at: r.step + 1, effect: r.effect_b }))].filter((p) => p.effect !== null);
  const names = (i) => facts.names[i];
  const drawn = Plot.plot({
    width: Math.max(260, Math.min(720, chart.clientWidth || 720)), height: 240, marginLeft: 56, className: "plot", ariaLabel: `Concept effect over the runs: ${nameOf(row)}`,
    ariaDescription: points.map((p) => `${names(p.at)}: ${number(p.effect)} logits`).join("; "),
    x: { type: "point", domain: d3.range(facts.names.length), tickFormat: names, label: null, padding: 0.4 }, y: { label: "effect, logits", grid: true, nice: true },
    marks: [
      Plot.ruleY([0], { stroke: "var(--muted)" }),
      Plot.ruleX(same.filter((r) => r.ci_low !== null), { x: (r) => r.step + 1, y1: (r) => r.effect_a + r.ci_low, y2: (r) => r.effect_a + r.ci_high, stroke: "var(--accent)", strokeWidth: 3, strokeOpacity: 0.5 }),
      Plot.line(points, { x: "at", y: "effect", stroke: "var(--muted)" }),
      Plot.dot(points, { x: "at", y: "effect", r: 5, fill: "var(--accent)", title: (p) => `${names(p.at)}: ${number(p.effect)}` }),
    ],
  });
  tips.ofChart(drawn);
  drawn.querySelectorAll("g[aria-label]").forEach((group) => group.removeAttribute("aria-label"));
  drawn.setAttribute("role", "img");
  chart.replaceChildren(element("h3", {}, nameOf(row)), drawn, element("p", { class: "muted small" }, "Bars: the run before, plus the 95 % interval of the change. A bar that leaves out the dot before it: moved."),
    downloads.ofChart(drawn, nameOf(row), points.map((p) => ({ run: names(p.at), effect: p.effect }))));
}

document.getElementById("comparison").replaceChildren(
  element("div", { class: "controls" }, element("label", { class: "field" }, element("span", {}, "Find effects"), find), element("label", { class: "field" }, element("span", {}, "Layer"), layer), element("div", { class: "checks" }, element("label", {}, onlyMoved, "moved only"))),
  chart, caption,
  element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Compared effects" }, element("table", { class: "plain" }, element("thead", {}, element("tr", {}, ...heads.values())), body)),
  downloads.line("Comparison of runs", { PNG: () => pictures.ofElement(body.parentElement), CSV: () => downloads.csvOfObjects(rows.map((r) => ({ from: facts.names[r.step], to: facts.names[r.step + 1], ...r }))) }), more,
);
draw();
document.documentElement.dataset.ready = "true";
