// Every table can be saved as CSV, every chart as SVG and as CSV.

const downloads = (() => {
  const plainNumber = /^[+-]?(\d+|\d{1,3}(,\d{3})+)(\.\d+)?(e[+-]?\d+)?$/;

  // A spreadsheet reads text that starts with = + - @ as a formula. As in vtcav_ray/text, such text gets a quote.
  function field(value) {
    let text = typeof value === "number" ? (Number.isFinite(value) ? String(value) : "") : String(value ?? "");
    text = text.replaceAll("\u00a0", " ").replace(/\s+/g, " ").trim();
    const number = text.replaceAll("−", "-");
    if (plainNumber.test(number)) return number.replaceAll(",", "");
    if (/^'*[=+\-@\uff1d\uff0b\uff0d\uff20]/.test(text)) text = `'${text}`;
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  const csv = (rows) => rows.map((row) => row.map(field).join(",")).join("\n") + "\n";

  // Rows of objects with the same keys.
  const csvOfObjects = (rows) => csv([Object.keys(rows[0] ?? {}), ...rows.map((row) => Object.values(row))]);

  function csvOfTable(table) {
    return csv([...table.rows].map((row) => [...row.cells].flatMap((one) => [one.innerText, ...Array(one.colSpan - 1).fill("")])));
  }

  function save(name, type, text) {
    const link = document.createElement("a");
    const url = URL.createObjectURL(new Blob([text], { type }));
    link.href = url;
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  // Drawing programs know neither CSS variables nor oklab(): read back each colour as the browser paints it.
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const painted = new Map();
  function plainColor(color) {
    if (!color || color === "none") return "none";
    if (!painted.has(color)) {
      pixel.clearRect(0, 0, 1, 1);
      pixel.fillStyle = color;
      pixel.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
      painted.set(color, a === 255 ? `rgb(${r},${g},${b})` : `rgba(${r},${g},${b},${(a / 255).toFixed(3)})`);
    }
    return painted.get(color);
  }

  const copied = ["stroke-width", "stroke-opacity", "fill-opacity", "opacity", "font-size", "font-weight", "text-anchor", "stroke-dasharray", "paint-order", "stroke-linejoin"];

  function svgText(svg) {
    const copy = svg.cloneNode(true);
    const [from, to] = [[svg, ...svg.querySelectorAll("*")], [copy, ...copy.querySelectorAll("*")]];
    from.forEach((node, i) => {
      if (node.matches("style, title")) return;
      const style = getComputedStyle(node);
      for (const name of copied) to[i].setAttribute(name, style.getPropertyValue(name));
      for (const name of ["fill", "stroke"]) to[i].setAttribute(name, plainColor(style.getPropertyValue(name)));
      for (const name of ["class", "style", "data-tip", "href", "tabindex"]) to[i].removeAttribute(name);
    });
    copy.querySelectorAll("style").forEach((node) => node.remove());
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("font-family", "sans-serif");
    const ground = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of [["width", "100%"], ["height", "100%"], ["fill", plainColor(getComputedStyle(svg.closest("article, dialog, figure, body")).backgroundColor)]]) ground.setAttribute(name, value);
    copy.prepend(ground);
    return new XMLSerializer().serializeToString(copy);
  }

  const fileName = (name, ending) => `${name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 80) || "data"}.${ending}`;

  // A line of buttons: kinds is {CSV: () => text, SVG: () => text}.
  function line(name, kinds) {
    const place = document.createElement("p");
    place.className = "save";
    for (const [kind, make] of Object.entries(kinds)) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet";
      button.textContent = kind;
      button.setAttribute("aria-label", `Save as ${kind}: ${name}`);
      button.addEventListener("click", () => save(fileName(name, kind.toLowerCase()), kind === "SVG" ? "image/svg+xml" : "text/csv;charset=utf-8", make()));
      place.append(button);
    }
    return place;
  }

  const ofTable = (table, name) => line(name, { CSV: () => csvOfTable(table) });

  // rows: the figures of the chart, as objects; or a function that returns them.
  const ofChart = (svg, name, rows) => line(name, { SVG: () => svgText(svg), CSV: () => csvOfObjects(typeof rows === "function" ? rows() : rows) });

  // The tables that are in the page already.
  function addToTables(root) {
    for (const table of root.querySelectorAll("table")) {
      const around = table.closest(".scroll") ?? table;
      if (around.nextElementSibling?.matches(".save") || around.parentElement.closest("table")) continue;
      const section = table.closest("section");
      around.after(ofTable(table, table.dataset.name ?? table.closest(".scroll")?.getAttribute("aria-label") ?? section?.querySelector("h1, h2")?.textContent ?? document.title));
    }
  }

  return { ofTable, ofChart, line, addToTables, csvOfObjects, svgText };
})();
