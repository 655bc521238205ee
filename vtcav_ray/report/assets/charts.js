// Charts with Observable Plot. Colours are CSS variables, so switching between light, dark and print needs no redraw.

const charts = (() => {
  const pending = new Map();
  const seen = new IntersectionObserver(
    (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => drawNow(e.target)),
    { rootMargin: "400px" },
  );
  const resized = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      const width = Math.floor(contentRect.width);
      if (target.drawnWidth && width && Math.abs(width - target.drawnWidth) > 8) fill(target, width);
    }
  });

  // Calls draw(width) when the place comes near the viewport and, unless `once`, whenever its width changes.
  function lazy(place, draw, { once = false } = {}) {
    place.draw = draw;
    place.once = once;
    pending.set(place, draw);
    seen.observe(place);
    return place;
  }

  function drawNow(place) {
    if (!pending.delete(place)) return;
    seen.unobserve(place);
    fill(place, Math.floor(place.clientWidth) || 600);
    if (!place.once) resized.observe(place);
  }

  function fill(place, width) {
    place.drawnWidth = width;
    const focused = place.contains(document.activeElement) ? [...place.querySelectorAll("a, button")].indexOf(document.activeElement) : -1;
    place.replaceChildren(...[place.draw(width)].flat());
    if (focused >= 0) place.querySelectorAll("a, button")[focused]?.focus({ preventScroll: true }); // redrawn at another width
  }

  // Observers must not keep a place alive after it was removed from the page.
  function forget(root) {
    for (const place of [...pending.keys()]) if (root.contains(place)) { pending.delete(place); seen.unobserve(place); }
  }

  // Printing includes the whole page, so draw all of it. Drawing may add further places.
  addEventListener("beforeprint", () => {
    const shown = () => [...pending.keys()].filter((place) => place.isConnected && place.clientWidth);
    for (let places = shown(); places.length; places = shown()) places.forEach(drawNow);
  });

  // The figures behind a chart's marks, for its CSV file.
  const figures = (cells) => cells.map((c) => ({
    class: c.className, concept: c.column.concept, against: c.column.against, layer: c.layer, status: marks.statuses[c.status].word,
    effect: c.effect, ci_low: c.low, ci_high: c.high, null_sd: c.nullSd, z: c.z, q: c.q, tcav_score: c.score, tcav_ci_low: c.scoreLow, tcav_ci_high: c.scoreHigh,
  }));

  // A chart with its buttons for saving. `rows`: its figures, as objects.
  function saved(svg, name, rows) {
    return [svg, downloads.ofChart(svg, name, rows)];
  }

  // Plot labels its groups "bar", "rule", ..., which is useless in screen readers. A chart of links is a group, not an image.
  function plot(options) {
    const svg = Plot.plot(options);
    tips.ofChart(svg);
    svg.querySelectorAll("g[aria-label]").forEach((group) => group.removeAttribute("aria-label"));
    svg.setAttribute("role", svg.querySelector("a") ? "group" : "img");
    return svg;
  }

  const hrefOf = (cell) => routes.cell(cell);
  const finite = (...values) => values.every(Number.isFinite);
  const statusColor = (cell) => (!marks.readable(cell.status) ? "var(--faint)" : marks.kindColor(cell.kind));

  // Layout of the layer names for bands that share `room` pixels: if the longest name is wider than its band, the names
  // are slanted and get a larger margin.
  function layerTicks(room, text = (layer) => layer) {
    const longest = 6.3 * d3.max(facts.layers, (layer) => text(layer).length);
    const aslant = longest > room / facts.layers.length;
    return { axis: { tickFormat: text, ...(aslant ? { tickRotate: -40 } : {}) }, more: aslant ? Math.ceil(0.64 * longest) : 0 };
  }

  // Dots with intervals over the null's band: one facet per layer, one position per kind.
  function byLayer(cells, { width, height, kinds, domain, unit, label, point, low, high, bandLow, bandHigh, zero, muted = () => false }) {
    const drawn = cells.filter((c) => Number.isFinite(point(c)));
    const narrow = width < 360;
    const ticks = layerTicks(width - 46, (d) => (narrow && d.length > 7 ? d.slice(0, 6) + "…" : d));
    const right = ticks.more ? 30 : 6; // the last slanted name extends beyond the edge
    return plot({
      width, height: height + ticks.more, marginLeft: 40, marginRight: right, marginTop: 20 + ticks.more, marginBottom: 8, insetLeft: 2, insetRight: 2,
      className: "plot", ariaLabel: label, ariaDescription: cells.length ? `${drawn.length} marks, each a link to its evidence` : "nothing to draw",
      fx: { domain: facts.layers, label: null, padding: 0.06, axis: "top", ...ticks.axis },
      x: { domain: kinds, axis: null, padding: 0.15 },
      y: { domain, label: width < 420 ? unit.replace("null ", "") : unit, labelAnchor: "top", labelArrow: "none", ticks: 4, grid: true, nice: false, clamp: true },
      marks: [
        Plot.frame({ stroke: "var(--line)", rx: 4 }),
        Plot.barY(drawn.filter((c) => finite(bandLow(c), bandHigh(c))), {
          fx: "layer", x: "kind", y1: bandLow, y2: bandHigh, fill: "var(--band)", insetLeft: -1, insetRight: -1,
        }),
        Plot.ruleY([zero], { stroke: "var(--muted)", strokeOpacity: 0.7 }),
        Plot.ruleX(drawn.filter((c) => finite(low(c), high(c))), {
          fx: "layer", x: "kind", y1: low, y2: high, stroke: { value: statusColor, scale: null }, strokeWidth: 2, strokeOpacity: (c) => (muted(c) ? 0.35 : 0.8),
        }),
        Plot.dot(drawn, {
          fx: "layer", x: "kind", y: point, r: 4.6, href: hrefOf, target: null, ariaLabel: marks.sentence, title: marks.sentence,
          symbol: { value: (c) => marks.symbols[c.status], scale: null },
          fill: { value: (c) => (c.status <= marks.LOWERS && !muted(c) ? statusColor(c) : "var(--surface)"), scale: null },
          stroke: { value: statusColor, scale: null }, strokeWidth: 1.8, strokeOpacity: (c) => (muted(c) ? 0.5 : 1),
        }),
        Plot.text(layersWhere(drawn, muted), { fx: (l) => l, text: () => "says nothing:\nsame gradient\nfor all clips", frameAnchor: "middle", fill: "var(--muted)", fontSize: 10, stroke: "var(--band)", strokeWidth: 6 }),
      ],
    });
  }

  const layersWhere = (cells, test) => facts.layers.filter((layer) => cells.some((c) => c.layer === layer && test(c)));

  function effects(cells, { width, kinds, domain, inSpreads }) {
    const scale = (c) => (inSpreads ? c.nullSd : 1);
    return byLayer(cells, {
      width, height: 190, kinds, domain, zero: 0, unit: inSpreads ? "null spreads" : "logits",
      label: "Concept effect by layer, with 95 % intervals over the null's band",
      point: (c) => c.effect / scale(c), low: (c) => c.low / scale(c), high: (c) => c.high / scale(c),
      bandLow: (c) => (-1.96 * c.nullSd) / scale(c), bandHigh: (c) => (1.96 * c.nullSd) / scale(c),
    });
  }

  function scores(cells, { width, kinds }) {
    const clip = (v) => Math.min(1, Math.max(0, v));
    return byLayer(cells, {
      width, height: 190, kinds, domain: [0, 1], zero: 0.5, unit: "score",
      label: "TCAV score by layer, with 95 % intervals over the null's band", muted: (c) => c.degenerate,
      point: (c) => c.score, low: (c) => c.scoreLow, high: (c) => c.scoreHigh,
      bandLow: (c) => clip(c.scoreNull - 1.96 * c.scoreNullSd), bandHigh: (c) => clip(c.scoreNull + 1.96 * c.scoreNullSd),
    });
  }

  // Overview of a class at one layer: one row per group of concepts, one mark per concept.
  function strip(cells, { width, domain, label, unit }) {
    const groups = Object.keys(marks.groupWords).filter((name) => cells.some((c) => c.column.group === name));
    const named = d3.groups(cells.filter((c) => c.status <= marks.LOWERS), (c) => c.column.group)
      .flatMap(([, group]) => d3.sort(group, (c) => -Math.abs(c.effect)).slice(0, 1));
    const nameOf = (c) => (c.column.group === "control" ? `${c.column.name}, ${c.kind}` : c.column.name);
    const anchor = (c) => (c.effect > d3.mean(domain) ? "end" : "start");
    return plot({
      width, height: 46 + 30 * groups.length, marginLeft: 62, marginRight: 12, marginTop: 4, marginBottom: 36, className: "plot", ariaLabel: label,
      ariaDescription: `${cells.length} concepts, each a link to its evidence`,
      x: { domain, label: unit, labelAnchor: "center", labelArrow: "none", ticks: Math.floor(width / 80), clamp: true, tickSize: 3 },
      y: { type: "band", domain: groups, label: null, tickFormat: (g) => (g === "control" ? "controls" : marks.groupWords[g]), tickSize: 0, padding: 0 },
      marks: [
        Plot.barX(groups, { y: (g) => g, x1: domain[0], x2: domain[1], fill: "var(--soft)", insetTop: 3, insetBottom: 3, rx: 3 }),
        Plot.ruleX([0], { stroke: "var(--muted)", strokeOpacity: 0.7 }),
        Plot.dot(d3.sort(cells, (c) => -c.status), {
          x: "effect", y: (c) => c.column.group, r: { value: (c) => (c.status <= marks.LOWERS ? 5 : 3.2), scale: null }, href: hrefOf, ariaLabel: marks.sentence, title: marks.sentence,
          symbol: { value: (c) => marks.symbols[c.status], scale: null },
          fill: { value: (c) => (c.status <= marks.LOWERS ? statusColor(c) : "var(--surface)"), scale: null },
          stroke: { value: statusColor, scale: null }, strokeWidth: 1.5, strokeOpacity: (c) => (c.status <= marks.LOWERS ? 1 : 0.6),
        }),
        Plot.text(named.filter((c) => anchor(c) === "end"), { x: "effect", y: (c) => c.column.group, text: nameOf, dx: -10, textAnchor: "end", fill: "var(--ink)", stroke: "var(--soft)", strokeWidth: 4, lineWidth: 16, textOverflow: "ellipsis" }),
        Plot.text(named.filter((c) => anchor(c) === "start"), { x: "effect", y: (c) => c.column.group, text: nameOf, dx: 10, textAnchor: "start", fill: "var(--ink)", stroke: "var(--soft)", strokeWidth: 4, lineWidth: 16, textOverflow: "ellipsis" }),
      ],
    });
  }

  // Held-out accuracy by layer: a faint tick per CAV and a dot for the mean, beside those of the random sets.
  function accuracy(points, singles, { width, color }) {
    const half = (0.35 * (width - 54)) / (facts.layers.length + 0.3); // half a band: CAVs on the left, random sets on the right
    const ticks = layerTicks(width - 54);
    return plot({
      width, height: 150 + ticks.more, marginLeft: 34, marginTop: 16, marginBottom: 22 + ticks.more, className: "plot",
      ariaLabel: "Held-out accuracy by layer, beside the random sets' own",
      ariaDescription: points.map((p) => `${p.layer}: ${words.fixed(p.accuracy)}, random sets up to ${words.fixed(p.nullAccuracy)}`).join("; "),
      x: { domain: facts.layers, type: "band", label: null, padding: 0.3, tickSize: 0, ...ticks.axis },
      y: { domain: [0.3, 1], label: "accuracy", labelArrow: "none", ticks: 4, grid: true, clamp: true },
      marks: [
        Plot.tickY(singles.filter((s) => s.isNull), { x: "layer", y: "value", stroke: "var(--faint)", strokeOpacity: 0.25, insetLeft: half + 5 }),
        Plot.tickY(singles.filter((s) => !s.isNull), { x: "layer", y: "value", stroke: color, strokeOpacity: 0.3, insetRight: half + 5 }),
        Plot.line(points, { x: "layer", y: "nullAccuracy", dx: half / 2 + 3, stroke: "var(--muted)", strokeDasharray: "3 3" }),
        Plot.line(points, { x: "layer", y: "accuracy", dx: -half / 2 - 3, stroke: color, strokeWidth: 2 }),
        Plot.dot(points, { x: "layer", y: "accuracy", dx: -half / 2 - 3, r: 4, fill: color, title: (p) => `${p.layer}: ${words.fixed(p.accuracy, 3)} (random sets: 95 % lie under ${words.fixed(p.nullAccuracy, 3)})` }),
      ],
    });
  }

  // One figure and its interval over the bars of its null. `tail`: also draw a line at the value, from where the test counts.
  function againstNull({ value, low, high, mean, sd, bars, tail, width, unit, label, color, symbol, domain }) {
    const reach = [...bars.flatMap((bar) => [bar.x1, bar.x2]), value, low, high, 0].filter(Number.isFinite);
    const range = domain ?? d3.extent(reach);
    const pad = domain ? 0 : 0.04 * (range[1] - range[0] || 1);
    const far = tail && bars.length && Number.isFinite(value) ? [value] : [];
    return plot({
      width, height: 136, marginLeft: 12, marginRight: 12, marginTop: 10, marginBottom: 34, className: "plot", ariaLabel: label,
      ariaDescription: `${words.general(value)}, interval ${words.general(low)} to ${words.general(high)}; the null has mean ${words.general(mean)} and spread ${words.general(sd)}`,
      x: { domain: [range[0] - pad, range[1] + pad], label: unit, labelAnchor: "center", labelArrow: "none", ticks: Math.max(3, Math.floor(width / 90)) },
      y: { domain: [-0.3, 1.05], axis: null },
      marks: [
        Plot.rectY(bars, { x1: "x1", x2: "x2", y1: 0, y2: "y", fill: "var(--null)", insetLeft: 0.5, insetRight: 0.5 }),
        Plot.ruleY([0], { stroke: "var(--line)" }),
        Plot.ruleX(Number.isFinite(mean) ? [mean] : [], { y1: 0, y2: 1.05, stroke: "var(--muted)", strokeDasharray: "3 3" }),
        Plot.ruleX(far, { y1: -0.3, y2: 1.05, stroke: color, strokeOpacity: 0.55 }),
        Plot.link(Number.isFinite(low) && Number.isFinite(high) ? [0] : [], { x1: () => low, x2: () => high, y1: -0.15, y2: -0.15, stroke: color, strokeWidth: 3 }),
        Plot.dot(Number.isFinite(value) ? [value] : [], { x: (d) => d, y: -0.15, r: 6.5, symbol: { value: () => symbol, scale: null }, fill: color, stroke: "var(--surface)", strokeWidth: 1.5 }),
      ],
    });
  }

  // The pushes of the concepts at one clip: filled on the predicted class, with its interval, hollow on the runner-up.
  function pushes(rows, { width, predicted, runnerUp }) {
    const named = rows.map((row) => ({ ...row, name: `${row.concept} at ${row.layer}` }));
    const tip = (r) => `${r.name}: presence ${words.percent(r.presence)}, push on ${predicted} ${words.signed(r.push)} (${words.signed(r.low)} to ${words.signed(r.high)}), on ${runnerUp} ${words.signed(r.pushRunnerUp)}`;
    const color = (r) => (r.push < 0 ? "var(--lowers)" : "var(--raises)");
    return plot({
      width, height: 44 + 34 * named.length, marginLeft: 12, marginRight: 12, marginTop: 6, marginBottom: 36, className: "plot",
      ariaLabel: "Pushes of the concepts at this clip", ariaDescription: named.map(tip).join("; "),
      x: { label: "push, logits", labelAnchor: "center", labelArrow: "none", ticks: Math.floor(width / 90), nice: true }, y: { type: "band", domain: named.map((r) => r.name), axis: null, padding: 0 },
      marks: [
        Plot.ruleX([0], { stroke: "var(--muted)", strokeOpacity: 0.7 }),
        Plot.text(named, { y: "name", text: "name", frameAnchor: "left", dy: -9, fill: "var(--ink)", stroke: "var(--surface)", strokeWidth: 4 }),
        Plot.ruleY(named.filter((r) => finite(r.low, r.high)), { y: "name", x1: "low", x2: "high", dy: 6, stroke: { value: color, scale: null }, strokeWidth: 2.5, strokeOpacity: 0.6 }),
        Plot.dot(named.filter((r) => finite(r.pushRunnerUp)), { x: "pushRunnerUp", y: "name", dy: 6, r: 3.6, stroke: "var(--muted)", fill: "var(--surface)", strokeWidth: 1.6, title: tip }),
        Plot.dot(named.filter((r) => finite(r.push)), { x: "push", y: "name", dy: 6, r: 4.6, fill: { value: color, scale: null }, title: tip }),
      ],
    });
  }

  // Each video of the class, sorted by how much its logit rises along the concept's direction.
  function videoStrip(videos, { width }) {
    return plot({
      width, height: 96, marginLeft: 12, marginRight: 12, marginBottom: 34, marginTop: 6, className: "plot",
      ariaLabel: "Sensitivity of each video of the class", ariaDescription: `${videos.length} videos, from ${words.general(videos.at(-1).sensitivity)} to ${words.general(videos[0].sensitivity)}`,
      x: { label: "sensitivity, logits per unit", labelAnchor: "center", labelArrow: "none", nice: true, ticks: Math.floor(width / 90) },
      marks: [
        Plot.ruleX([0], { stroke: "var(--muted)" }),
        Plot.dot(videos, Plot.dodgeY("middle", {
          x: "sensitivity", r: 3.5, title: (v) => `${v.video}: ${words.general(v.sensitivity)}`,
          fill: { value: (v) => (v.sensitivity > 0 ? "var(--raises)" : "var(--lowers)"), scale: null }, fillOpacity: 0.75,
        })),
      ],
    });
  }

  return { plot, pushes, saved, figures, videoStrip, lazy, forget, strip, effects, scores, accuracy, againstNull };
})();
