// Start: set up the addresses, then build the parts in display order.

const app = (() => {
  let lastHash = ""; // of the page itself, without a dialog
  let followed = ""; // the last address of all

  function follow() {
    address.read();
    const route = routes.read(location.hash);
    const from = followed;
    followed = location.hash;
    if (route?.view === "example") {
      evidence.close();
      explained.show(route.example, from.startsWith("#cell/") ? from : lastHash);
      address.write();
      return;
    }
    explained.close();
    if (route?.view === "cell") {
      evidence.show(route.row, lastHash);
      address.write();
      return;
    }
    evidence.close();
    if (route?.view === "class" && route.name !== undefined) {
      classes.show(route.name);
      routes.hold(document.getElementById("class"), "start");
    } else if (route?.view === "concept") concepts.show(route.name);
    else if (document.getElementById(route?.view)?.matches("main > section")) routes.hold(document.getElementById(route.view), "start");
    address.write();
    lastHash = location.hash;
  }

  // A small overview chart for each class in the summary, all on one scale.
  function drawStrips() {
    const l = matrix.defaultLayer();
    const places = [...document.querySelectorAll(".strip")];
    const cellsOf = (name) => facts.columns.map((column, c) => (column.contrast === "random" ? store.find(facts.classes.indexOf(name), c, l) : -1))
      .filter((row) => row >= 0).map((row) => store.cell(row)).filter((cell) => Number.isFinite(cell.effect));
    const [low, high] = d3.extent([0, ...places.flatMap((place) => cellsOf(place.dataset.class)).filter((c) => marks.readable(c.status)).map((c) => c.effect)]);
    const pad = 0.08 * (high - low || 1);
    for (const place of places) {
      const cells = cellsOf(place.dataset.class);
      const label = `Effect of each concept on ${place.dataset.class} at ${facts.layers[l]}, in logits`;
      if (cells.length) charts.lazy(place, (width) => charts.saved(charts.strip(cells, { width, domain: [low - pad, high + pad], label, unit: `effect at ${facts.layers[l]}, logits` }), label, charts.figures(cells)));
    }
  }

  async function start() {
    for (const link of document.querySelectorAll("a.class-link")) link.href = routes.ofClass(link.dataset.class);
    if (facts.rows) {
      await store.unpack();
      clips.build();
      search.build();
      document.getElementById("to-matrix").addEventListener("click", (event) => { event.preventDefault(); document.getElementById("matrix").scrollIntoView({ behavior: "instant" }); matrix.enter(); });
      drawStrips();
      matrix.build(document.getElementById("matrix-place"));
      classes.build(document.getElementById("class-place"));
      concepts.build(document.getElementById("concepts-place"));
      examples.build(document.getElementById("examples-place"));
      addEventListener("hashchange", follow);
      if (location.hash) follow();
    } else {
      for (const name of ["matrix", "class", "concepts"]) {
        document.getElementById(`${name}-place`).replaceChildren(element("p", { class: "muted" }, "There are no scores to draw."));
      }
    }
    downloads.addToTables(document.querySelector("main"));
    document.documentElement.dataset.ready = "true";
  }

  return { start };
})();

// Wait for the first paint: the summary is visible before the data is unpacked.
requestAnimationFrame(() => setTimeout(app.start));
