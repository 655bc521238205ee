// All class examples in one table, each a link to its explanation.

const examples = (() => {
  const MANY = 40; // rows shown before "Show all"
  const state = { text: "", name: "", wrong: false, all: false };
  let body, caption, more;

  function build(place) {
    if (!place) return; // nothing is explained
    address.part("examples", () => ({ ...(state.text && { find: state.text }), ...(state.name && { class: state.name }), ...(state.wrong && { wrong: "1" }) }), (values) => {
      Object.assign(state, { text: values.find ?? "", name: facts.classes.includes(values.class) ? values.class : "", wrong: values.wrong === "1" });
      controls(place);
    });
    controls(place);
  }

  function controls(place) {
    const changed = () => { state.all = false; draw(); address.write("examples"); };
    const find = element("input", { type: "search", placeholder: "filter…", autocomplete: "off", value: state.text, oninput: () => { state.text = find.value.trim().toLowerCase(); changed(); } });
    const names = [...new Set(explained.all.map((one) => one.name))];
    const chooser = element("select", { onchange: () => { state.name = chooser.value; changed(); } }, element("option", { value: "" }, "all"), ...names.map((name) => element("option", { value: name, selected: name === state.name }, name)));
    const wrong = element("input", { type: "checkbox", checked: state.wrong, onchange: () => { state.wrong = wrong.checked; changed(); } });
    body = element("tbody");
    caption = element("p", { class: "muted small", "aria-live": "polite" });
    more = element("button", { type: "button", class: "more", onclick: () => { const at = body.children.length; state.all = true; draw(); body.children[at]?.querySelector("a")?.focus(); } });
    const heads = [["example"], ["true class"], ["the model's answer"], ["its probability", "n"], ["runner-up"], ["its probability", "n"]];
    place.replaceChildren(
      element("div", { class: "controls" }, element("label", { class: "field" }, element("span", {}, "Class of the examples"), chooser), element("label", { class: "field" }, element("span", {}, "Find examples"), find),
        element("div", { class: "checks" }, element("label", {}, wrong, "wrong answers only"))),
      caption,
      element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Examples" }, element("table", { class: "plain" }, element("thead", {}, element("tr", {}, ...heads.map(([head, kind]) => element("th", { scope: "col", class: kind }, head)))), body)),
      downloads.line("Examples", { PNG: () => pictures.ofElement(body.parentElement), CSV: () => downloads.csvOfObjects(shown().map((one) => ({ video: one.video, class: one.name, true_class: one.label ?? "", predicted: one.predicted, probability: one.classes[0].p, runner_up: one.runnerUp, runner_up_probability: one.classes[1].p }))) }),
      more,
    );
    draw();
  }

  const shown = () => explained.all.filter((one) => (!state.name || one.name === state.name) && (!state.wrong || one.wrong) && `${one.video} ${one.label ?? ""} ${one.predicted}`.toLowerCase().includes(state.text));

  function draw() {
    const found = shown();
    const first = state.all ? found : found.slice(0, MANY);
    body.replaceChildren(...first.map((one) => element("tr", {},
      element("th", { scope: "row" }, element("span", { class: "thumb" }, clips.thumbnail(one.name, one.video), explained.link(one.name, one.video, one.video))),
      element("td", {}, one.label ?? "–"), element("td", {}, one.wrong ? explained.mark(one) : one.predicted), element("td", { class: "n" }, one.classes[0].p.toFixed(3)),
      element("td", {}, one.runnerUp), element("td", { class: "n" }, one.classes[1].p.toFixed(3)))));
    caption.textContent = found.length ? `${words.whole(found.length)} of ${words.whole(explained.all.length)} examples; ${words.whole(found.filter((one) => one.wrong).length)} answered wrongly.` : "No example matches: widen the filters.";
    more.hidden = first.length === found.length;
    more.textContent = `Show all ${words.whole(found.length)} examples`;
  }

  return { build };
})();
