// Buttons to save: each class's charts as one picture and as figures, and the table of checkpoints.
(() => {
  const { columns, rows } = JSON.parse(document.getElementById("points").textContent);
  for (const section of document.querySelectorAll("section[data-class]")) {
    const name = section.dataset.class;
    const table = section.querySelector("table");
    const picture = () => pictures.ofElement(table);
    const figures = () => rows.filter((row) => row[0] === name).map((row) => Object.fromEntries(columns.map((column, i) => [column, row[i]])));
    section.querySelector(".scroll").after(downloads.line(`Effects on ${name} over training`, { PNG: picture, SVG: picture, CSV: () => downloads.csvOfObjects(figures()) }));
  }
})();
