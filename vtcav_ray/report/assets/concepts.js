// The concepts: their clips, how well each layer separates them, and how stable and how similar their directions are.

const concepts = (() => {
  const names = [...new Set(facts.columns.map((c) => c.concept))];
  const infoOf = new Map(facts.columns.map((c) => [c.concept, c]));
  let list, more;
  const state = { text: "", group: "", all: false };
  const MANY = 12; // cards shown before "Show all"

  function build(place) {
    address.part("concepts", () => ({ ...(state.text && { find: state.text }), ...(state.group && { kind: state.group }) }), (values) => {
      Object.assign(state, { text: values.find ?? "", group: facts.columns.some((c) => c.group === values.kind) ? values.kind : "" });
      controls(place);
    });
    controls(place);
  }

  function controls(place) {
    const changed = () => { draw(); address.write("concepts"); };
    const groups = [...new Set(facts.columns.map((c) => c.group))];
    const find = element("input", { type: "search", placeholder: "filter…", autocomplete: "off", value: state.text, oninput: () => { state.text = find.value.trim().toLowerCase(); changed(); } });
    const kind = element("select", { onchange: () => { state.group = kind.value; changed(); } }, element("option", { value: "" }, "all"), ...groups.map((g) => element("option", { value: g, selected: g === state.group }, marks.groupWords[g])));
    list = element("div", { class: "cards" });
    more = element("button", { type: "button", class: "more", onclick: () => { const at = list.children.length; state.all = true; draw(); list.children[at]?.focus(); } });
    place.replaceChildren(
      element("div", { class: "controls" }, element("label", { class: "field" }, element("span", {}, "Find concepts"), find), element("label", { class: "field" }, element("span", {}, "Concepts that are"), kind)),
      list, more, entanglement(),
    );
    draw();
  }

  function draw() {
    const shown = names.filter((name) => name.toLowerCase().includes(state.text) && (!state.group || infoOf.get(name).group === state.group));
    shown.sort((a, b) => infoOf.get(a).name.localeCompare(infoOf.get(b).name) || marks.kindRank(infoOf.get(a).kind) - marks.kindRank(infoOf.get(b).kind));
    charts.forget(list);
    const first = state.all ? shown : shown.slice(0, MANY);
    list.replaceChildren(...first.map((name) => charts.lazy(element("article", { class: "card", id: cardId(name), tabindex: "-1" }, element("h3", {}, name)), () => card(name), { once: true })));
    more.hidden = first.length === shown.length;
    more.textContent = `Show all ${words.whole(shown.length)} concepts`;
    if (!shown.length) list.replaceChildren(element("p", { class: "muted" }, names.length ? "No concept matches: widen the filter." : "There are no concepts."));
  }

  const cardId = (name) => `card-${names.indexOf(name)}`;

  function show(name) {
    Object.assign(state, { text: "", group: "", all: true });
    draw();
    const place = document.getElementById(cardId(name));
    routes.hold(place, "center");
    place.focus({ preventScroll: true });
  }

  function card(name) {
    const column = infoOf.get(name);
    const own = facts.concepts[name];
    const points = byLayer(name);
    const pool = facts.accuracies.find((a) => a.concept === name)?.kind; // its random clips, which the null is made of
    const singles = facts.accuracies.filter((a) => a.concept === name || (a.concept === null && a.kind === pool))
      .flatMap((a) => a.values.map((v) => ({ layer: a.layer, value: v / 100, isNull: a.concept === null })));
    const content = document.createDocumentFragment();
    content.append(
      element("h3", {}, marks.kindDot(column.kind), column.name, element("span", { class: "muted" }, ` ${column.kind}`)),
      own ? makeup(own) : "",
      own ? element("p", { class: "muted small" }, `${words.whole(own.clips)} clips from ${words.whole(own.videos)} videos`) : "",
      own?.previews.length ? element("div", { class: "previews" }, ...own.previews.map((clip) => clips.picture(clip, name))) : element("p", { class: "muted small" }, "no preview"),
      charts.lazy(element("div", { class: "chart small" }), (width) => charts.saved(charts.accuracy(points, singles, { width, color: marks.kindColor(column.kind) }), `Accuracy of ${name}`,
        [...points.map((p) => ({ layer: p.layer, cav: "mean", accuracy: p.accuracy })), ...singles.map((s) => ({ layer: s.layer, cav: s.isNull ? "random sets" : "one", accuracy: s.value }))])),
      layerTable(name, points), strongest(name), driven(name), nearest(name),
    );
    return content;
  }

  // What the concept's clips are: one bar each for their labels, objects and source videos.
  function makeup(own) {
    const bars = Object.entries(own.parts).filter(([, parts]) => parts.length);
    if (!bars.length) return "";
    return element("dl", { class: "makeup" }, ...bars.map(([what, parts]) => {
      const total = d3.sum(parts, ([, n]) => n);
      const text = parts.map(([value, n]) => `${value} ${words.percent(n / total)}`).join(", ");
      return element("div", { "data-tip": `${what}: ${text}` }, element("dt", {}, what),
        element("dd", {}, element("span", { class: "makeup-bar", "aria-hidden": "true" }, ...parts.map(([value, n], i) => element("span", { style: `flex-grow:${n}`, class: / others$/.test(value) ? "rest" : `part${i % 4}` }))),
          element("span", { class: "makeup-text" }, what === "source video" && parts.length > 3 ? `${words.whole(own.videos)} videos, ${parts[0][1] === 1 ? "one clip" : `at most ${words.whole(parts[0][1])} clips`} of each` : text)));
    }));
  }

  // Whether an effect goes beyond the class of the clips.
  function beyond(cell) {
    const [effect, q] = ["effect_within", "q_within"].map((name) => (store.has(name) ? store.value(cell.row, name) : NaN));
    if (!Number.isFinite(q)) return "";
    return q < facts.alpha ? `; beyond the class itself: ${words.signed(effect)} (q ${words.probability(q)})` : `; not shown beyond the class itself (q ${words.probability(q)})`;
  }

  // Accuracy and stability depend only on (concept, layer), so the row of any class will do.
  function byLayer(name) {
    const columns = facts.columns.map((c, i) => [c, i]).filter(([c]) => c.concept === name);
    const [, c] = columns.find(([column]) => column.contrast === "random") ?? columns[0];
    return facts.layers.map((layer, l) => {
      const k = facts.classes.findIndex((_, at) => store.find(at, c, l) >= 0);
      return k < 0 ? null : store.cell(store.find(k, c, l));
    }).filter(Boolean);
  }

  // A table with one column per layer. Many layers are wider than a card and scroll inside it.
  const FIT = 6;
  const columnALayer = (label, table) => (facts.layers.length <= FIT ? table : element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table));
  const withSave = (label, table) => { const around = element("div", {}, columnALayer(label, table)); around.append(downloads.ofTable(table, label)); return around; };

  function layerTable(name, points) {
    const row = (title, value) => element("tr", {}, element("th", { scope: "row" }, title), ...points.map((p) => element("td", { class: "n" }, value(p))));
    return withSave(`Accuracy by layer, ${name}`, element("table", { class: "plain tiny" },
      element("thead", {}, element("tr", {}, element("td"), ...points.map((p) => element("th", { scope: "col", class: "n" }, p.layer)))),
      element("tbody", {}, row("accuracy", (p) => words.fixed(p.accuracy)), row("random sets'", (p) => words.fixed(p.nullAccuracy)), row("stability", (p) => words.fixed(p.stability)))));
  }

  function strongest(name) {
    const cells = facts.columns.flatMap((column, c) => (column.concept !== name ? [] : facts.classes.flatMap((_, k) => facts.layers.map((__, l) => store.find(k, c, l)))))
      .filter((row) => row >= 0 && store.field("status")[row] <= marks.LOWERS).map((row) => store.cell(row));
    const best = d3.rollups(cells, marks.strongest, (c) => c.k).map(([, cell]) => cell)
      .sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect)).slice(0, 4);
    if (!best.length) return element("p", { class: "small muted" }, "No class's logit is shown to depend on it.");
    return element("ul", { class: "small plain-list" }, ...best.map((cell) =>
      element("li", {}, element("a", { href: routes.cell(cell), "data-tip": marks.sentence(cell) }, marks.statusMark(cell.status), ` ${cell.className} ${words.signed(cell.effect)}`), element("span", { class: "muted" }, ` at ${cell.layer}${beyond(cell)}`))));
  }

  // The videos whose logit rises and falls most along the concept's direction, in the most informative cell.
  function driven(name) {
    const c = store.findColumn(name, "random");
    if (c < 0) return "";
    const cells = facts.classes.flatMap((_, k) => facts.layers.map((__, l) => store.find(k, c, l))).filter((row) => row >= 0).map((row) => store.cell(row));
    const many = cells.filter((one) => store.videosOf(one.row).length > 1);
    // If the gradient is the same for every clip, all videos are equally sensitive.
    const cell = marks.strongest(many.filter((one) => !one.degenerate));
    if (!cell) return many.length ? element("p", { class: "small muted" }, "At every layer the gradient is the same for all of a class's clips, so all videos are equally sensitive.") : "";
    const videos = store.videosOf(cell.row);
    const shown = Math.min(3, Math.floor(videos.length / 2));
    const list = (title, some) => element("div", {}, element("h4", {}, title), element("ol", { class: "small plain-list" }, ...some.map((v) => element("li", {}, clips.ofVideo(cell.className, v.video), element("span", { class: "muted" }, ` ${words.general(Number(v.sensitivity.toPrecision(2)))}`)))));
    return element("div", {}, element("div", { class: "driven" }, list("most sensitive to it", videos.slice(0, shown)), list("least sensitive to it", videos.slice(-shown).reverse())),
      element("p", { class: "small muted" }, "Sensitivities of ", element("a", { href: routes.cell(cell) }, `${cell.className} at ${cell.layer}`), ", logits per unit."));
  }

  const NEAREST = 5; // concepts listed in a card

  // The concepts whose directions are closest to this one's at any layer, with the cosine at each layer.
  function nearest(name) {
    const layers = facts.entanglement.filter((x) => x.concepts.includes(name) && x.concepts.length > 1);
    if (!layers.length) return "";
    const cosines = new Map(); // other -> layer -> cosine
    for (const { layer, concepts: labels, cosine } of layers) {
      const at = labels.indexOf(name) * labels.length;
      labels.forEach((other, i) => { if (other !== name) (cosines.get(other) ?? cosines.set(other, new Map()).get(other)).set(layer, cosine[at + i] / 100); });
    }
    const reach = (other) => d3.max(cosines.get(other).values(), Math.abs);
    const others = d3.sort(cosines.keys(), (other) => -reach(other)).slice(0, NEAREST);
    return withSave(`Most entangled with ${name}, by layer`, element("table", { class: "plain tiny near" },
      element("caption", {}, "most entangled with (cosine)"),
      element("thead", {}, element("tr", {}, element("td"), ...layers.map(({ layer }) => element("th", { scope: "col", class: "n" }, layer)))),
      element("tbody", {}, ...others.map((other) => element("tr", {},
        element("th", { scope: "row" }, element("a", { href: routes.ofConcept(other) }, other)),
        ...layers.map(({ layer }) => {
          const value = cosines.get(other).get(layer);
          return element("td", { class: Math.abs(value) >= 0.5 ? "n close" : "n" }, Number.isFinite(value) ? words.short(value) : "–");
        }))))));
  }

  // The cosines between all concepts' directions at a layer.
  function entanglement() {
    const drawable = facts.entanglement.filter((x) => x.concepts.length > 1);
    if (!drawable.length) return "";
    const body = element("div", { class: "entangled" });
    const paint = () => {
      const { layer, concepts: labels, cosine } = drawable[Number(select.value)];
      const size = Math.max(7, Math.min(22, Math.floor(560 / labels.length)));
      const data = cosine.map((value, i) => ({ a: labels[Math.floor(i / labels.length)], b: labels[i % labels.length], value: value / 100 }));
      const named = labels.length <= 60;
      body.replaceChildren(...charts.saved(charts.plot({
        width: labels.length * size + (named ? 190 : 20), height: labels.length * size + (named ? 180 : 20), marginLeft: named ? 180 : 10, marginTop: 6, marginBottom: named ? 170 : 10, marginRight: 6, className: "plot",
        ariaLabel: `Cosines between the concepts' directions at ${layer}`, padding: 0.04,
        x: { domain: labels, label: null, tickRotate: -60, axis: named ? "bottom" : null, tickSize: 0 }, y: { domain: labels, label: null, axis: named ? "left" : null, tickSize: 0 },
        marks: [Plot.cell(data, {
          x: "b", y: "a", title: (d) => `${d.a} and ${d.b}: ${words.signed(d.value)}`,
          fill: { value: (d) => `color-mix(in oklab, var(--${d.value < 0 ? "lowers" : "raises"}) ${Math.round(Math.abs(d.value) * 90)}%, var(--surface))`, scale: null },
        })],
      }), `Cosines of directions at ${layer}`, data.map(({ a, b, value }) => ({ concept: a, other: b, cosine: value }))));
    };
    const select = element("select", { onchange: paint }, ...drawable.map((x, i) => element("option", { value: String(i), selected: i === drawable.length - 1 }, x.layer)));
    const details = element("details", { ontoggle: () => { if (details.open && !body.firstChild) paint(); } },
      element("summary", {}, "Similarity of the directions (entanglement)"),
      element("p", { class: "muted small" }, "Cosines between the concepts' mean CAVs. Two concepts with a cosine near 1 or −1 share one axis: what raises the logit may be either of them."),
      element("label", { class: "field" }, element("span", {}, "Layer"), select), element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Cosines of directions" }, body));
    return details;
  }

  return { build, show };
})();
