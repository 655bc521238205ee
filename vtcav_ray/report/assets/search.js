// Search over classes and concepts, in the bar at the top.

const search = (() => {
  const MOST = 12;
  const concepts = [...new Set(facts.columns.map((c) => c.concept))];
  const all = [
    ...facts.classes.map((name) => ({ name, kind: "class", href: routes.ofClass(name) })),
    ...concepts.map((name) => ({ name, kind: "concept", href: routes.ofConcept(name) })),
  ].map((one) => ({ ...one, key: one.name.toLowerCase() }));
  let input, list, found = [], at = -1;

  function build() {
    list = element("ul", { id: "found", role: "listbox", "aria-label": "Classes and concepts", hidden: true });
    input = element("input", { type: "search", id: "search", role: "combobox", placeholder: "Class or concept…", autocomplete: "off", "aria-label": "Search classes and concepts",
      "aria-expanded": "false", "aria-controls": "found", "aria-autocomplete": "list", oninput: update, onkeydown: onKey, onfocus: update, onblur: () => close() });
    document.querySelector(".bar nav").after(element("div", { class: "search", role: "search" }, input, list));
  }

  // Names that start with the text come first.
  function update() {
    const text = input.value.trim().toLowerCase();
    found = !text ? [] : d3.sort(all.filter((one) => one.key.includes(text)), (one) => !one.key.startsWith(text)).slice(0, MOST);
    at = found.length ? 0 : -1;
    list.replaceChildren(...found.map((one, i) => element("li", { id: `found-${i}`, role: "option", "aria-selected": String(i === at), onpointerdown: (event) => { event.preventDefault(); go(i); } },
      element("span", { class: "name" }, one.name), " ", element("span", { class: "muted" }, one.kind))));
    if (text && !found.length) list.append(element("li", { class: "muted", role: "option", "aria-disabled": "true", "aria-selected": "false" }, "Nothing has this name."));
    list.hidden = !text;
    mark();
  }

  function mark() {
    input.setAttribute("aria-expanded", String(!list.hidden));
    if (at >= 0 && !list.hidden) input.setAttribute("aria-activedescendant", `found-${at}`);
    else input.removeAttribute("aria-activedescendant");
    [...list.children].forEach((node, i) => node.setAttribute("aria-selected", String(i === at)));
    list.children[at]?.scrollIntoView({ block: "nearest" });
  }

  function onKey(event) {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (found.length) at = (at + (event.key === "ArrowDown" ? 1 : -1) + found.length) % found.length;
      mark();
    } else if (event.key === "Enter" && at >= 0) {
      event.preventDefault();
      go(at);
    } else if (event.key === "Escape") close();
  }

  function go(i) {
    input.value = "";
    close();
    location.hash = found[i].href;
  }

  function close() {
    list.hidden = true;
    mark();
  }

  return { build };
})();
