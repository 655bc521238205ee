"use strict";
// Theme and the pause of moving pictures. All else on this page is plain HTML.
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const names = { "light dark": "as the system", light: "light", dark: "dark" };
  const symbols = { "light dark": "◐", light: "☀", dark: "☾" };
  const order = Object.keys(names);

  // Storage can be switched off for pages from disk; the choice then lasts as long as the page. The key is the report's.
  function storage(use) {
    try {
      return use(localStorage);
    } catch (error) {
      if (error instanceof DOMException) return null;
      throw error;
    }
  }

  function setTheme(value) {
    root.style.colorScheme = value;
    root.dataset.theme = value;
    button.textContent = symbols[value];
    button.setAttribute("aria-label", `Colours: ${names[value]}`);
  }

  button.addEventListener("click", () => {
    const next = order[(order.indexOf(root.dataset.theme) + 1) % order.length];
    setTheme(next);
    storage((s) => s.setItem("vtcav-theme", next));
  });
  const stored = storage((s) => s.getItem("vtcav-theme"));
  setTheme(order.includes(stored) ? stored : "light dark");

  const pause = document.getElementById("pause");
  if (pause) {
    pause.hidden = false;
    const setPlaying = (playing) => {
      root.classList.toggle("paused", !playing);
      pause.textContent = playing ? "Pause pictures" : "Play pictures";
      if (playing) return;
      for (const picture of document.querySelectorAll(".overlay")) {
        const [image, canvas] = [picture.querySelector("img"), picture.querySelector("canvas")];
        const still = () => {
          canvas.width = image.naturalWidth;
          canvas.height = image.naturalHeight;
          canvas.getContext("2d").drawImage(image, 0, 0);
        };
        if (image.complete) still();
        else image.addEventListener("load", still, { once: true });
      }
    };
    pause.addEventListener("click", () => setPlaying(root.classList.contains("paused")));
    setPlaying(!matchMedia("(prefers-reduced-motion: reduce)").matches);
  }
  root.dataset.ready = "true";
})();
