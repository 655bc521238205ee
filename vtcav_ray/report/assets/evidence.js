// The evidence for one cell: a sentence, two charts, and every number of its row with its meaning.

const evidence = (() => {
  const dialog = document.getElementById("evidence");
  let before = "";
  let shown = -1;

  function show(row, hashBefore) {
    const cell = store.cell(row);
    shown = row;
    if (!dialog.open) before = hashBefore;
    const title = element(
      "h2", { id: "evidence-title", tabindex: "-1" },
      marks.statusMark(cell.status), element("span", { class: "name" }, cell.className), " × ", element("span", { class: "name" }, cell.column.concept),
    );
    const pictures = element("div", { class: "pictures" });
    dialog.replaceChildren(...[
      element("header", {}, title, element("div", { class: "dialog-buttons" }, copyButton(), closeButton())),
      layerTabs(cell),
      element("p", { class: "verdict" }, ...verdict(cell)),
      pictures,
      videoSection(row, cell),
      ...numbers(row),
      links(cell),
    ].filter(Boolean));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    drawPictures(pictures, cell);
    const strip = dialog.querySelector(".video-strip");
    const videos = store.videosOf(row);
    if (strip) strip.append(...charts.saved(charts.videoStrip(videos, { width: Math.floor(strip.clientWidth) }), `Sensitivity to ${cell.column.concept} at ${cell.layer}`, videos));
    downloads.addToTables(dialog);
    title.focus({ preventScroll: true });
  }

  async function drawPictures(place, cell) {
    const [effectBars, scoreBars] = [await store.nullBars(cell.row, "effect"), await store.nullBars(cell.row, "score")];
    if (!place.isConnected) return; // another cell was opened in the meantime
    const width = Math.min(460, Math.floor(place.clientWidth));
    const permuted = cell.column.contrast === "pair" || inPairs(cell) ? "with the members of its pairs swapped" : "with source videos permuted between the two sides";
    place.replaceChildren(
      picture("Concept effect against its null", charts.againstNull({
        value: cell.effect, low: cell.low, high: cell.high, mean: 0, sd: cell.nullSd, bars: effectBars, tail: true, width, unit: "logits", label: "Concept effect against its null",
        color: statusColor(cell), symbol: marks.symbols[cell.status],
      }), effectBars.length
        ? `Bars: the test's own null, ${permuted}, in logits; values beyond ${facts.nulls.reach} standard errors are in the outermost. p is twice the share of the null beyond the line, on the side with less of it.`
        : "No null is kept for this comparison.", histogram(cell.effect, cell.low, cell.high, effectBars)),
      picture("TCAV score against random-against-random", charts.againstNull({
        value: cell.score, low: cell.scoreLow, high: cell.scoreHigh, mean: cell.scoreNull, sd: cell.scoreNullSd, bars: scoreBars, width, unit: "TCAV score",
        label: "TCAV score against random-against-random scores", color: cell.degenerate ? "var(--faint)" : "var(--ink)", symbol: d3.symbolCircle, domain: [0, 1],
      }), cell.degenerate ? "The gradient is the same for every clip here, so this chart carries no information."
        : scoreBars.length && inPairs(cell) ? "Bars: scores of the same clips, each pair swapped by a coin. The wider they lie, the less a sign count can decide."
        : scoreBars.length ? `Bars: scores of single random sets against one another, shared by all concepts of the kind ${cell.kind} with as many clips. The wider they lie, the less a sign count can decide.`
          : "No null is kept for this comparison.", histogram(cell.score, cell.scoreLow, cell.scoreHigh, scoreBars)),
    );
  }

  // The figures of a chart, for its CSV file.
  const histogram = (value, low, high, bars) => [{ what: "value", from: value, to: value, height: "" }, { what: "95 % interval", from: low, to: high, height: "" }, ...bars.map((bar) => ({ what: "null", from: bar.x1, to: bar.x2, height: bar.y }))];

  const NAMED = 5; // videos at either end

  function videoSection(row, cell) {
    const videos = store.videosOf(row);
    if (!videos.length) return null;
    const list = (title, some) => element("div", {}, element("h4", {}, title), element("ol", { class: "small plain-list thumbs" },
      ...some.map((v) => element("li", {}, clips.ofVideo(cell.className, v.video), element("span", { class: "muted" }, ` ${Number(v.sensitivity.toPrecision(2)).toString().replace("-", "−")}`)))));
    const half = Math.min(NAMED, Math.floor(videos.length / 2));
    return element("section", { class: "videos" },
      element("h3", {}, `The videos of ${cell.className}`),
      element("p", { class: "muted small" }, `${words.whole(videos.filter((v) => v.sensitivity > 0).length)} of ${words.whole(videos.length)} rise along the mean of the CAVs${cell.degenerate ? ". The gradient is the same for all of them here" : ""}.`),
      element("div", { class: "video-strip" }),
      facts.examplesNote ? element("p", { class: "muted small" }, facts.examplesNote) : null,
      half ? element("div", { class: "pictures" }, list("Most sensitive to it", videos.slice(0, half)), list("Least sensitive to it", videos.slice(-half).reverse())) : null,
    );
  }

  const statusColor = (cell) => ({ raises: "var(--raises)", lowers: "var(--lowers)" })[marks.statuses[cell.status].key] ?? "var(--muted)";

  // The negatives of the concept are the partners of its own clips (`pairs: by_name`).
  const inPairs = (cell) => cell.column.contrast === "random" && String(store.value(cell.row, "note")).includes("In pairs:");

  function picture(title, chart, note, rows) {
    return element("figure", {}, element("figcaption", {}, title), ...charts.saved(chart, title, rows), element("p", { class: "muted small" }, note));
  }

  function verdict(cell) {
    const strong = (text) => element("strong", {}, text);
    const at = [" at ", element("span", { class: "name" }, cell.layer)];
    const margin = Number.isFinite(cell.share) ? `, ${words.percent(Math.abs(cell.share))} of the class's margin` : "";
    const patch = Number.isFinite(cell.patch) ? [` Putting the concept's activations in place changes the logit by ${words.signed(cell.patch)}.`] : [];
    const interval = ` (95 % interval ${words.signed(cell.low)} to ${words.signed(cell.high)}, q ${words.probability(cell.q).startsWith("<") ? "" : "= "}${words.probability(cell.q)}).`;
    const value = words.signed(Math.abs(cell.effect)).slice(1);
    const moving = inPairs(cell) ? "Moving from the other clip of each pair to the concept's " : "Moving from random clips to the concept's ";
    switch (cell.status) {
      case marks.RAISES: return [moving, strong(`raises the logit by ${value}`), margin, ...at, interval, ...patch];
      case marks.LOWERS: return [moving, strong(`lowers the logit by ${value}`), margin, ...at, interval, ...patch];
      case marks.NOT_SHOWN: return [strong("Not decided"), ...at, `: the estimate is ${words.signed(cell.effect)}`, interval, ...patch];
      case marks.NO_EFFECT: return [strong("No effect of interest"), ...at, `: the interval lies inside ± the smallest effect of interest, and the estimate is ${words.signed(cell.effect)}`, interval, ...patch];
      case marks.NOT_LEARNABLE: return [strong("Not learnable"), ...at, ": no effect is shown, and a classifier tells the concept's clips from random ones no better than random sets from one another."];
      default: return [strong("Undecided"), ...at, ": no figure can be read here."];
    }
  }

  function layerTabs(cell) {
    const tabs = facts.layers.map((layer, l) => {
      const row = store.find(cell.k, cell.c, l);
      if (row < 0) return null;
      const other = store.cell(row);
      return element("a", { href: routes.cell(other), "aria-current": l === cell.l ? "true" : null }, marks.statusMark(other.status), layer);
    });
    return element("nav", { class: "tabs", "aria-label": "The same comparison at each layer" }, ...tabs);
  }

  function numbers(row) {
    const known = new Set(words.columnGroups.flatMap(([, names]) => names));
    const further = store.names().filter((name) => !known.has(name));
    const groups = [...words.columnGroups, ["Further columns", further]];
    return groups.map(([title, names]) => {
      const there = names.filter((name) => store.has(name));
      if (!there.length) return null;
      const body = there.map((name) => {
        const [heading, format, meaning] = words.columns[name] ?? [name, (v) => (typeof v === "number" ? words.general(v) : v), ""];
        return element("tr", { "data-column": name }, element("th", { scope: "row" }, heading), element("td", { class: "n" }, format(store.value(row, name))), element("td", { class: "muted" }, meaning));
      });
      return element("section", {}, element("h3", {}, title), element("table", { class: "plain numbers", "data-name": `${title} of ${store.cell(row).className} and ${store.cell(row).column.concept}` }, element("tbody", {}, ...body)));
    }).filter(Boolean);
  }

  function links(cell) {
    return element("p", { class: "links" },
      element("a", { href: routes.ofClass(cell.className) }, `All of ${cell.className}`), " · ",
      element("a", { href: routes.ofConcept(cell.column.concept) }, `The concept ${cell.column.concept}`),
    );
  }

  function copyButton() {
    if (!navigator.clipboard) return null;
    const button = element("button", { type: "button", class: "quiet", onclick: copy }, "Copy link");
    async function copy() {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    }
    return button;
  }

  const closeButton = () => element("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => dialog.close() }, "✕");

  function close() {
    if (dialog.open) dialog.close();
  }

  dialog.addEventListener("close", () => {
    // Remove a closed cell from the address, or the same link would not open it again. This event comes late: by now,
    // another link may have been followed.
    if (!dialog.open && routes.read(location.hash)?.row === shown) {
      history.replaceState(null, "", before || location.pathname + location.search);
      address.write();
    }
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  return { show, close, copyButton };
})();
