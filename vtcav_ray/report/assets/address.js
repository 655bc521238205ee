// The state of the page's controls, kept in the address after a `?`, so that a link shows what its sender saw:
// `#matrix?matrix.layer=late&matrix.against=rest`. What has its starting value is left out.

const address = (() => {
  const parts = new Map(); // section -> {read, apply}

  // read(): {name: text}, without what has its starting value. apply(values): sets all of it; a missing name is the start.
  function part(section, read, apply) {
    parts.set(section, { read, apply });
  }

  const split = (hash) => {
    const at = hash.indexOf("?");
    return at < 0 ? [hash, null] : [hash.slice(0, at), hash.slice(at + 1)];
  };

  function query() {
    const found = new URLSearchParams();
    for (const [section, { read }] of parts) for (const [name, text] of Object.entries(read())) found.set(`${section}.${name}`, text);
    return found.toString();
  }

  // Write the state without a new entry in the history. `section`: where a control was used.
  function write(section) {
    const [path] = split(location.hash);
    const now = query();
    const to = (section && (!path || document.getElementById(path.slice(1))?.matches("main > section")) ? `#${section}` : path) + (now ? `?${now}` : "");
    if (to !== location.hash) history.replaceState(null, "", to && !to.startsWith("#") ? `#${to}` : to || location.pathname + location.search);
  }

  // Take the state from the address. An address without one, such as a link within the page, leaves it.
  function read() {
    const [, text] = split(location.hash);
    if (text === null || text === query()) return;
    const found = new URLSearchParams(text);
    for (const [section, { apply }] of parts) {
      apply(Object.fromEntries([...found].filter(([name]) => name.startsWith(`${section}.`)).map(([name, value]) => [name.slice(section.length + 1), value])));
    }
  }

  return { part, write, read, split };
})();
