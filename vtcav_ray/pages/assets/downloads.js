// Every table can be saved as CSV and PNG, every chart as PNG, SVG and CSV. Needs pictures.js.

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

  function save(name, content) {
    const link = document.createElement("a");
    const url = URL.createObjectURL(content);
    link.href = url;
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  const fileName = (name, ending) => `${name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 80) || "data"}.${ending}`;

  // What each kind of file is made from: PNG and SVG from the text of an SVG, CSV from its own text.
  const files = {
    PNG: (text) => pictures.png(text),
    SVG: (text) => new Blob([text], { type: "image/svg+xml" }),
    CSV: (text) => new Blob([text], { type: "text/csv;charset=utf-8" }),
  };

  // A line of buttons: kinds is {PNG: () => text, SVG: () => text, CSV: () => text}.
  function line(name, kinds) {
    const place = document.createElement("p");
    place.className = "save";
    for (const [kind, make] of Object.entries(kinds)) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet";
      button.textContent = kind;
      button.setAttribute("aria-label", `Save as ${kind}: ${name}`);
      button.addEventListener("click", async () => save(fileName(name, kind.toLowerCase()), await files[kind](make())));
      place.append(button);
    }
    return place;
  }

  const ofTable = (table, name) => line(name, { PNG: () => pictures.ofElement(table), CSV: () => csvOfTable(table) });

  // rows: the figures of the chart, as objects; or a function that returns them.
  function ofChart(svg, name, rows) {
    const picture = () => pictures.ofChart(svg);
    return line(name, { PNG: picture, SVG: picture, CSV: () => csvOfObjects(typeof rows === "function" ? rows() : rows) });
  }

  // A part of the page that is a picture itself, such as a panel of marks or a map.
  const ofPanel = (panel, name) => line(name, { PNG: () => pictures.ofElement(panel) });

  // The tables that are in the page already.
  function addToTables(root) {
    for (const table of root.querySelectorAll("table")) {
      const around = table.closest(".scroll") ?? table;
      if (around.nextElementSibling?.matches(".save") || around.parentElement.closest("table")) continue;
      const section = table.closest("section");
      around.after(ofTable(table, table.dataset.name ?? table.closest(".scroll")?.getAttribute("aria-label") ?? section?.querySelector("h1, h2")?.textContent ?? document.title));
    }
  }

  return { ofTable, ofChart, ofPanel, line, addToTables, csvOfObjects };
})();
