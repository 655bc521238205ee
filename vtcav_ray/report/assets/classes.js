// One class: each concept's effect and TCAV score by layer, with static, moving and control kinds in one chart.

const classes = (() => {
  let chooser, list, head, state = { k: 0, unit: "logits", contrast: "random", text: "", all: false };
  const MANY = 24; // rows shown before "Show all"

  // If one layer's effects are much larger than another's, a scale in logits would draw the smaller ones flat.
  const SPREADS_FROM = 8; // ratio of the widest to the narrowest layer's null
  function defaultUnit() {
    const sd = store.field("null_sd"), layer = store.field("layer");
    const medians = facts.layers.map((_, l) => d3.median(sd.filter((value, row) => layer[row] === l && value > 0))).filter(Boolean);
    return medians.length && d3.max(medians) / d3.min(medians) > SPREADS_FROM ? "spreads" : "logits";
  }

  let startUnit, startContrast;
  function build(place) {
    startUnit = defaultUnit();
    state.unit = startUnit;
    const contrasts = [...new Set(facts.columns.map((c) => c.contrast))];
    startContrast = contrasts.includes("random") ? "random" : contrasts[0];
    state.contrast = startContrast;
    address.part("class", () => ({
      ...(state.unit !== startUnit && { unit: state.unit }), ...(state.contrast !== startContrast && { against: state.contrast }), ...(state.text && { find: state.text }),
    }), (values) => {
      state.unit = ["logits", "spreads"].includes(values.unit) ? values.unit : startUnit;
      state.contrast = contrasts.includes(values.against) ? values.against : startContrast;
      state.text = values.find ?? "";
      controls(place, contrasts);
    });
    controls(place, contrasts);
  }

  function controls(place, contrasts) {
    const changed = () => { draw(); address.write("class"); };
    chooser = element("select", { onchange: () => { location.hash = routes.ofClass(facts.classes[Number(chooser.value)]); } },
      ...facts.classes.map((name, k) => element("option", { value: String(k) }, name)));
    const step = (by, label, text) => element("button", { type: "button", class: "quiet", "aria-label": label, onclick: () => {
      location.hash = routes.ofClass(facts.classes[(state.k + by + facts.classes.length) % facts.classes.length]);
    } }, text);
    const unit = element("fieldset", { class: "segments" }, element("legend", {}, "Effect in"), ...[["logits", "logits"], ["spreads", "null spreads"]].map(([value, text]) => {
      const input = element("input", { type: "radio", name: "class-unit", value, checked: value === state.unit, onchange: () => { state.unit = value; changed(); } });
      return element("label", {}, input, element("span", {}, text));
    }));
    const contrast = contrasts.length < 2 ? null : element("label", { class: "field" }, element("span", {}, "Against"),
      element("select", { onchange: (event) => { state.contrast = event.target.value; changed(); } }, ...contrasts.map((c) => element("option", { value: c, selected: c === state.contrast }, marks.contrastWords[c]))));
    const find = element("input", { type: "search", placeholder: "filter…", autocomplete: "off", value: state.text, oninput: () => { state.text = find.value.trim().toLowerCase(); changed(); } });
    head = element("div", { class: "class-head" });
    list = element("div", { class: "class-rows" });
    place.replaceChildren(
      element("div", { class: "controls" }, step(-1, "Class before", "‹"), element("label", { class: "field" }, element("span", {}, "Class"), chooser), step(1, "Next class", "›"), unit, contrast,
        element("label", { class: "field" }, element("span", {}, "Find concepts"), find)),
      head, list,
    );
    draw();
  }

  function show(name) {
    state.k = facts.classes.indexOf(name);
    state.all = false;
    draw();
  }

  function cellsOfClass() {
    const cells = [];
    facts.columns.forEach((column, c) => {
      if (column.contrast !== state.contrast || !column.concept.toLowerCase().includes(state.text)) return;
      facts.layers.forEach((_, l) => {
        const row = store.find(state.k, c, l);
        if (row >= 0) cells.push(store.cell(row));
      });
    });
    return cells;
  }

  function draw() {
    chooser.value = String(state.k);
    const cells = cellsOfClass();
    const kinds = marks.kindOrder.filter((kind) => cells.some((c) => c.kind === kind));
    const inSpreads = state.unit === "spreads";
    const domain = extent(cells, inSpreads);
    const byName = [...d3.group(cells, (c) => (c.column.contrast === "random" ? c.column.name : `${c.column.name} ${marks.against(c.column)}`))];
    const strongest = (group) => d3.max(group, (c) => (c.status <= marks.LOWERS ? Math.abs(c.effect) : 0)) ?? 0;
    byName.sort((a, b) => strongest(b[1]) - strongest(a[1]) || a[0].localeCompare(b[0]));
    const shown = state.all ? byName : byName.slice(0, MANY);
    charts.forget(list);
    head.replaceChildren(
      element("h3", {}, facts.classes[state.k] ?? "–", element("span", { class: "muted" }, tally(cells))),
      element("div", { class: "legends" }, marks.kindLegend(kinds), marks.statusLegend(), bandLegend()),
      explained.listOf(facts.classes[state.k]) ?? "",
    );
    list.replaceChildren(
      element("div", { class: "class-row heads", "aria-hidden": "true" }, element("div"), element("h4", {}, "Concept effect"), element("h4", {}, "TCAV score (sign count)")),
      ...shown.map(([name, group]) => nameRow(name, group, { kinds, domain, inSpreads })),
    );
    if (!byName.length) list.replaceChildren(element("p", { class: "muted" }, "No concept matches: widen the filter."));
    if (shown.length < byName.length) {
      list.append(element("button", { type: "button", onclick: () => { const at = shown.length; state.all = true; draw(); list.querySelectorAll("article")[at]?.querySelector("a")?.focus(); } }, `Show all ${byName.length} concepts`));
    }
  }

  function tally(cells) {
    const count = (status) => cells.filter((c) => c.status === status).length;
    const examples = facts.classClips[facts.classes[state.k]];
    return ` ${count(marks.RAISES)} raise, ${count(marks.LOWERS)} lower, of ${cells.length} comparisons${examples ? ` · ${examples} example clips` : ""}`;
  }

  // One scale for all concepts of the class, so they can be compared. Unreadable cells don't stretch it.
  function extent(cells, inSpreads) {
    const ends = cells.filter((c) => marks.readable(c.status)).flatMap((c) => {
      const unit = inSpreads ? c.nullSd : 1;
      return [c.low / unit, c.high / unit, c.effect / unit, (1.96 * c.nullSd) / unit, (-1.96 * c.nullSd) / unit];
    }).filter(Number.isFinite);
    const [low, high] = ends.length ? d3.extent(ends) : [-1, 1];
    const pad = 0.06 * (high - low || 1);
    return [low - pad, high + pad];
  }

  function nameRow(name, group, options) {
    const heading = element("div", { class: "row-name" }, element("h4", {}, name), preview(group), element("ul", { class: "row-kinds" }, ...d3.groups(d3.sort(group, (c) => marks.kindRank(c.kind)), (c) => c.column.concept).map(([concept, cells]) => {
      const best = marks.strongest(cells);
      return element("li", {}, marks.kindDot(best.kind), element("a", { href: routes.ofConcept(concept) }, best.kind), " ", marks.statusMark(best.status), best.status <= marks.LOWERS ? ` ${words.signed(best.effect)} at ${best.layer}` : "");
    })));
    return element("article", { class: "class-row", "aria-label": name }, heading,
      charts.lazy(element("div", { class: "chart" }), (width) => charts.saved(charts.effects(group, { width, ...options }), `Effect of ${name} on ${group[0].className}`, charts.figures(group))),
      charts.lazy(element("div", { class: "chart" }), (width) => charts.saved(charts.scores(group, { width, ...options }), `TCAV score of ${name} on ${group[0].className}`, charts.figures(group))),
    );
  }

  function preview(group) {
    const concept = (group.find((c) => c.column.group === "dynamic") ?? group[0]).column.concept;
    const clip = facts.concepts[concept]?.previews[0];
    return clip ? clips.picture(clip, concept) : null;
  }

  const bandLegend = () => element("ul", { class: "legend" }, element("li", {}, element("span", { class: "band-swatch", "aria-hidden": "true" }), "null: ± 1.96 spreads"));

  return { build, show };
})();
