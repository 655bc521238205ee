// The matrix on paper: plain tables of as many concepts as fit across A4, with every class and every column.

const print = (() => {
  const ACROSS = 9; // columns per table

  addEventListener("beforeprint", () => {
    const place = document.getElementById("matrix-place");
    place.querySelector(".print-matrix")?.remove();
    if (!facts.rows) return;
    const { classes: rows, columns, valueOf, title } = matrix.shown();
    const parts = d3.range(0, columns.length, ACROSS).map((from) => columns.slice(from, from + ACROSS));
    const heading = (c) => element("th", { scope: "col", class: "n" }, facts.columns[c].name, element("br"), element("small", {}, facts.columns[c].kind, facts.columns[c].contrast === "pair" ? ` ${marks.against(facts.columns[c])}` : ""));
    place.append(element("div", { class: "print-matrix" }, ...parts.map((part) => element("table", { class: "plain" }, element("caption", {}, title),
      element("thead", {}, element("tr", {}, element("td"), ...part.map(heading))),
      element("tbody", {}, ...rows.map((k) => element("tr", {}, element("th", { scope: "row" }, facts.classes[k]), ...part.map((c) => element("td", { class: "n" }, valueOf(k, c))))))))));
  });
})();
