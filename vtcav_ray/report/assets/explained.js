// One class example: what the model answers to it, and which concepts push it there.

const explained = (() => {
  const given = facts.explained;
  const dialog = document.getElementById("example");
  const SHOWN = 12; // rows of the chart
  let before = "";
  let shown = null;

  const all = given.examples.map(([name, video, label, atClip, start, ...likely], i) => {
    const classes = likely.map(([k, p]) => ({ name: given.names[k], p }));
    return {
      i, name: given.names[name], video, label: label < 0 ? null : given.names[label], atClip: atClip === 1, start, end: given.examples[i + 1]?.[4] ?? given.rows,
      classes, predicted: classes[0].name, runnerUp: classes[1].name, wrong: label !== likely[0][0],
    };
  });
  const byName = d3.group(all, (one) => one.name);
  const places = new Map(all.map((one) => [`${one.name}\n${one.video}`, one]));
  const find = (name, video) => places.get(`${name}\n${video}`);

  // The figures are unpacked when the first example is opened.
  let unpacked = null;
  async function rowsOf(one) {
    const columns = await (unpacked ??= store.columnsOf("explained", given));
    const value = (field, i) => columns.get(field)[i];
    return d3.range(one.start, one.end).map((i) => {
      const row = {
        concept: given.concepts[value("concept", i)], layer: given.layers[value("layer", i)], presence: value("presence", i),
        push: value("push", i), low: value("ci_low", i), high: value("ci_high", i),
        pushRunnerUp: value("push_runner_up", i), lowRunnerUp: value("runner_up_ci_low", i), highRunnerUp: value("runner_up_ci_high", i),
      };
      return { ...row, weight: row.presence * (row.push - row.pushRunnerUp) };
    });
  }

  // A link to the explanation; null: the example has none.
  function link(name, video, text = "explain") {
    const one = find(name, video);
    return one ? element("a", { class: "explain", href: routes.ofExample(name, video), "aria-label": text === video ? null : `${text}: ${video}` }, text) : null;
  }

  const mark = (one) => element("span", { class: one.wrong ? "wrong" : "right" }, one.wrong ? `✗ ${one.predicted}` : "✓");

  // The examples of a class, with the answers that are wrong.
  function listOf(name) {
    const examples = byName.get(name) ?? [];
    if (!examples.length) return null;
    const wrong = examples.filter((one) => one.wrong).length;
    const list = element("ul", { class: "thumbs plain-list examples" });
    const fill = () => { if (!list.firstChild) list.append(...examples.map((one) => element("li", {}, clips.thumbnail(name, one.video), link(name, one.video, one.video), " ", mark(one)))); };
    return element("details", { class: "class-examples", ontoggle: fill }, element("summary", {}, `${words.whole(examples.length)} ${examples.length === 1 ? "example" : "examples"}, one by one: ${wrong ? `${words.whole(wrong)} answered wrongly` : "all answered correctly"}`), list);
  }

  async function show(one, hashBefore) {
    if (!dialog.open) before = hashBefore;
    shown = one;
    const title = element("h2", { id: "example-title", tabindex: "-1" }, element("span", { class: "name" }, one.name), " ", element("span", { class: "muted" }, one.video));
    const place = element("div", {}, element("p", { class: "muted" }, "Unpacking…"));
    dialog.replaceChildren(
      element("header", {}, title, element("div", { class: "dialog-buttons" }, step(one, -1, "Example before", "‹"), step(one, 1, "Next example", "›"), evidence.copyButton(), element("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => dialog.close() }, "✕"))),
      element("div", { class: "example-head" }, clips.thumbnail(one.name, one.video) ?? "", element("div", {}, element("p", { class: "verdict" }, ...verdict(one)), answers(one))),
      place,
    );
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    title.focus({ preventScroll: true });
    const rows = await rowsOf(one);
    if (!place.isConnected) return; // another example was opened in the meantime
    place.replaceChildren(...body(one, rows));
    downloads.addToTables(dialog);
  }

  function step(one, by, label, text) {
    const examples = byName.get(one.name);
    const other = examples[(examples.indexOf(one) + by + examples.length) % examples.length];
    return element("button", { type: "button", class: "quiet", "aria-label": label, disabled: examples.length < 2, onclick: () => { location.hash = routes.ofExample(other.name, other.video); } }, text);
  }

  function verdict(one) {
    const strong = (text) => element("strong", {}, text);
    const p = one.classes[0].p.toFixed(3);
    if (one.label === null) return ["The model answers ", strong(one.predicted), ` (probability ${p}). The true class is not known.`];
    if (!one.wrong) return ["The model answers ", strong(one.predicted), ` (probability ${p}), which is right. The runner-up is ${one.runnerUp}.`];
    const of = one.classes.find((c) => c.name === one.label);
    return ["The model answers ", strong(one.predicted), ` (probability ${p}), which is wrong. The true class is ${one.label}${of ? ` (probability ${of.p.toFixed(3)})` : ", which the model does not have"}.`];
  }

  const answers = (one) => element("ul", { class: "answers", "aria-label": "Probabilities" }, ...one.classes.map((c) => element("li", {}, element("span", { class: c.name === one.label ? "name true" : "name" }, c.name, c.name === one.label ? element("small", {}, " true class") : ""),
    element("span", { class: "meter share", "aria-hidden": "true" }, element("span", { style: `width:${100 * c.p}%` })), element("span", { class: "n" }, c.p.toFixed(3)))));

  function body(one, rows) {
    if (!rows.length) return [element("p", { class: "muted" }, `The run's tables have no gradient of ${one.predicted} or ${one.runnerUp}. \`vtcav explain RUN ${one.video}\` runs the model on this clip.`)];
    const name = `Concepts of ${one.video}`;
    const known = (row, low, high) => (Number.isFinite(low) && Number.isFinite(high) ? `${words.signed(low)} … ${words.signed(high)}` : "–");
    const heads = ["concept", "layer", "presence", `push on ${one.predicted}`, "95 % of runs", `push on ${one.runnerUp}`, "weight"];
    const chart = charts.lazy(element("div", { class: "chart" }), (width) => charts.saved(charts.pushes(rows.slice(0, SHOWN), { width, predicted: one.predicted, runnerUp: one.runnerUp }), name, rows));
    return [
      element("h3", {}, "What pushes it"),
      element("p", { class: "muted small" }, `Filled: the push on ${one.predicted}, with the interval over the runs; hollow: on ${one.runnerUp}. The ${Math.min(SHOWN, rows.length)} largest weights, in logits.`),
      chart,
      element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, element("table", { class: "plain" },
        element("thead", {}, element("tr", {}, ...heads.map((head, i) => element("th", { scope: "col", class: i > 2 ? "n" : null }, head)))),
        element("tbody", {}, ...rows.map((row) => element("tr", {},
          element("th", { scope: "row" }, element("a", { href: routes.ofConcept(row.concept) }, row.concept)), element("td", {}, row.layer),
          element("td", {}, words.percent(row.presence), element("span", { class: "meter share", "aria-hidden": "true" }, element("span", { style: `width:${100 * row.presence}%` }))),
          element("td", { class: "n" }, words.signed(row.push)), element("td", { class: "n" }, known(row, row.low, row.high)),
          element("td", { class: "n" }, words.signed(row.pushRunnerUp)), element("td", { class: "n" }, words.signed(row.weight))))))),
      element("p", { class: "muted small" }, "Presence: share of random clips with less of the concept. Push: change of the logit, to first order, if the clip's whole activation moved from random clips to the concept. Weight: presence times the push on the answer minus the push on the runner-up. ",
        one.atClip ? "The pushes are those at this clip." : "The pushes are means over the reference clips, as the run's tables have no gradient of both classes at this clip. ",
        one.atClip ? "" : `\`vtcav explain RUN ${one.video}\` runs the model on this clip.`,
        given.rowsLeftOut ? ` ${words.whole(given.rowsLeftOut)} rows with smaller weights are left out.` : ""),
      element("p", { class: "links" }, element("a", { href: routes.ofClass(one.name) }, `All of ${one.name}`), " · ", element("a", { href: "#examples" }, "All examples")),
    ];
  }

  function close() {
    if (dialog.open) dialog.close();
  }

  // Back to where the example was opened: a comparison's evidence opens again. This event comes late: by now, another link
  // may have been followed.
  dialog.addEventListener("close", () => {
    if (dialog.open || routes.read(location.hash)?.example !== shown) return;
    history.replaceState(null, "", before || location.pathname + location.search);
    if (before.startsWith("#cell/")) dispatchEvent(new Event("hashchange"));
    else address.write();
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  return { all, find, link, listOf, mark, show, close };
})();
