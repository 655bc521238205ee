// Pause and play animated images, and save tables. Everything else on this page is plain HTML.
(() => {
  const root = document.documentElement;
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
  downloads.addToTables(document.querySelector("main"));
  for (const panel of document.querySelectorAll(".panel")) panel.append(downloads.ofPanel(panel, panel.querySelector("h3").textContent));
  for (const overlay of document.querySelectorAll(".overlay")) overlay.append(downloads.ofPanel(overlay, overlay.querySelector("strong").textContent));
  root.dataset.ready = "true";
})();
