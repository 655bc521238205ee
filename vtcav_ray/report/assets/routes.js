// Links: every class, concept and cell has its own address after the #.

const routes = (() => {
  const part = encodeURIComponent;
  const cell = (c) => `#cell/${part(c.className)}/${part(c.column.concept)}/${part(c.column.against)}/${part(c.layer)}`;
  const ofClass = (name) => `#class/${part(name)}`;
  const ofExample = (name, video) => `#example/${part(name)}/${part(video)}`;
  const ofConcept = (name) => `#concept/${part(name)}`;

  // {view, ...} of an address; null if it does not match anything in this report.
  function read(hash) {
    const [view, ...rest] = address.split(hash)[0].replace(/^#/, "").split("/");
    let names;
    try {
      names = rest.map(decodeURIComponent);
    } catch (error) {
      if (error instanceof URIError) return null; // a truncated or hand-edited link
      throw error;
    }
    if (view === "class" && names.length) return facts.classes.includes(names[0]) ? { view, name: names[0] } : null;
    if (view === "concept" && names.length) return facts.columns.some((c) => c.concept === names[0]) ? { view, name: names[0] } : null;
    if (view === "example") {
      const example = explained.find(names[0], names[1]);
      return example ? { view, example } : null;
    }
    if (view === "cell") {
      const [className, concept, against, layer] = names;
      const [k, c, l] = [facts.classes.indexOf(className), store.findColumn(concept, against), facts.layers.indexOf(layer)];
      const row = k < 0 || c < 0 || l < 0 ? -1 : store.find(k, c, l);
      return row < 0 ? null : { view, row };
    }
    return { view };
  }

  // Charts and cards are drawn when they come near the viewport, and content that grows above would push the target out
  // of sight. Keep the target in view until the page has its final size or the reader scrolls.
  function hold(place, block) {
    const stop = new AbortController();
    const again = () => place.scrollIntoView({ block, behavior: "instant" });
    const growing = new ResizeObserver(again);
    stop.signal.addEventListener("abort", () => growing.disconnect());
    for (const event of ["wheel", "touchstart", "pointerdown", "keydown"]) addEventListener(event, () => stop.abort(), { signal: stop.signal, passive: true });
    setTimeout(() => stop.abort(), 3000);
    growing.observe(document.body);
    again();
  }

  return { hold, cell, ofClass, ofConcept, ofExample, read };
})();
