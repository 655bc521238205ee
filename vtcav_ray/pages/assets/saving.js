// Buttons to save the tables of a page that has no other script of its own.
downloads.addToTables(document.querySelector("main"));
document.documentElement.dataset.ready = "true";
