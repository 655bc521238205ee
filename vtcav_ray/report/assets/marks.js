// Marks for status and kind: each has both a shape and a colour, so either one is enough to read the page.

const SVG = "http://www.w3.org/2000/svg";

// Make an element: element("div", {class: "x", onclick: f}, child, "text"). Strings are always inserted as text.
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") node.style.cssText = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const marks = (() => {
  // In the order of vtcav_ray.report.score_cells.Status.
  const statuses = [
    { key: "raises", word: "raises the logit", path: "M8 2 L14.5 13.5 L1.5 13.5 Z", fill: true },
    { key: "lowers", word: "lowers the logit", path: "M8 14 L14.5 2.5 L1.5 2.5 Z", fill: true },
    { key: "not-shown", word: "not decided", path: "M8 3.5 a4.5 4.5 0 1 0 0.01 0 Z", fill: false },
    { key: "not-learnable", word: "not learnable", path: "M3.5 3.5 L12.5 12.5 M12.5 3.5 L3.5 12.5", fill: false },
    { key: "undecided", word: "no figure", path: "M8 2 L14 8 L8 14 L2 8 Z", fill: false },
    { key: "no-effect", word: "no effect", path: "M3 5.5 L13 5.5 M3 10.5 L13 10.5", fill: false },
  ];
  const RAISES = 0, LOWERS = 1, NOT_SHOWN = 2, NOT_LEARNABLE = 3, UNDECIDED = 4, NO_EFFECT = 5;
  const readable = (status) => status <= NOT_SHOWN || status === NO_EFFECT;

  const triangleDown = {
    draw(context, size) {
      const y = -Math.sqrt(size / (Math.sqrt(3) * 3));
      context.moveTo(0, -y * 2);
      context.lineTo(-Math.sqrt(3) * y, y);
      context.lineTo(Math.sqrt(3) * y, y);
      context.closePath();
    },
  };
  const symbols = [d3.symbolTriangle, triangleDown, d3.symbolCircle, d3.symbolTimes, d3.symbolDiamond, d3.symbolSquare];

  const knownKinds = ["spatiotemporal", "tracked", "spatial", "context", "given", "still", "frozen", "shuffled", "reversed", "padding"];
  const kindOrder = [...knownKinds, ...new Set(facts.columns.map((c) => c.kind).filter((kind) => !knownKinds.includes(kind)))];
  const kindColor = (kind) => (knownKinds.includes(kind) ? `var(--kind-${kind})` : "var(--kind-other)");
  const kindRank = (kind) => kindOrder.indexOf(kind);
  const groupWords = { dynamic: "moving", static: "still", context: "full frame", control: "motion controls", other: "other" };

  const drawnMarks = new Map();

  function statusMark(status, { label = true } = {}) {
    const key = `${status} ${label}`;
    if (!drawnMarks.has(key)) drawnMarks.set(key, drawMark(status, label));
    return drawnMarks.get(key).cloneNode(true);
  }

  function drawMark(status, label) {
    const { key, word, path, fill } = statuses[status];
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 16 16");
    svg.setAttribute("class", `mark ${key}`);
    if (label) {
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", word);
    } else svg.setAttribute("aria-hidden", "true");
    const shape = document.createElementNS(SVG, "path");
    shape.setAttribute("d", path);
    shape.setAttribute("fill", fill ? "currentColor" : "none");
    shape.setAttribute("stroke", "currentColor");
    shape.setAttribute("stroke-width", fill ? "1" : "2");
    svg.append(shape);
    return svg;
  }

  const kindDot = (kind) => element("span", { class: "kind-dot", style: `background:${kindColor(kind)}`, "aria-hidden": "true" });

  function statusLegend() {
    const items = statuses.map((s, i) => element("li", {}, statusMark(i, { label: false }), s.word));
    return element("ul", { class: "legend", "aria-label": "Marks" }, ...items);
  }

  function kindLegend(kinds) {
    const items = kinds.map((kind) => element("li", {}, kindDot(kind), kind));
    return element("ul", { class: "legend", "aria-label": "Kinds of concept, from left to right in each layer" }, ...items);
  }

  // The cell that represents a concept: significant cells first, then readable layers before degenerate ones, then the
  // larger effect. The sentences of the summary use the same order.
  function strongest(cells) {
    const rank = (c) => (c.status > LOWERS ? 0 : c.degenerate ? 1 : 2);
    const size = (c) => (Number.isFinite(c.effect) ? Math.abs(c.effect) : -1);
    return d3.greatest(cells, (a, b) => rank(a) - rank(b) || size(a) - size(b));
  }

  // What a column's concept is compared with.
  const contrastWords = { random: "random clips", rest: "the other concepts of its kind", pair: "another concept" };
  const against = (column) => `against ${column.contrast === "pair" ? column.against : contrastWords[column.contrast]}`;

  // Text of a cell for screen readers and tooltips.
  function sentence(cell) {
    const other = cell.column.contrast === "random" ? "" : ` ${against(cell.column)}`;
    return (
      `${cell.column.concept}${other} at ${cell.layer} for ${cell.className}: ${statuses[cell.status].word}, ` +
      `${words.signed(cell.effect)} logits (${words.signed(cell.low)} to ${words.signed(cell.high)}), q ${words.probability(cell.q)}; ` +
      `TCAV score ${words.fixed(cell.score)}${cell.degenerate ? ", which says nothing here" : ""}`
    );
  }

  return { statuses, symbols, statusMark, kindDot, statusLegend, kindLegend, kindOrder, kindColor, kindRank, groupWords, contrastWords, against, strongest, sentence, RAISES, LOWERS, NOT_SHOWN, NOT_LEARNABLE, UNDECIDED, NO_EFFECT, readable };
})();
