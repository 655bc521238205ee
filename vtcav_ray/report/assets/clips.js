// Thumbnails of clips. They play, and a click enlarges them.

const clips = (() => {
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  let dialog = null;

  const example = (className, video) => facts.examples[className]?.[video];

  // An <img> can't be paused, so its first frame is drawn on a canvas to show while paused.
  function movie(clip, about) {
    const canvas = element("canvas", { width: clip.width, height: clip.height, "aria-hidden": "true" });
    const image = element("img", { src: clip.src, width: clip.width, height: clip.height, loading: "lazy", decoding: "async", alt: `${about}, a clip of ${clip.video}`,
      onload: () => canvas.getContext("2d").drawImage(image, 0, 0) });
    return [image, canvas];
  }

  // A thumbnail of a clip; `about`: the class or concept that it is an example of.
  function picture(clip, about) {
    return element("button", { type: "button", class: "preview", "data-tip": clip.video, "aria-label": `Enlarge: ${about}, a clip of ${clip.video}`, "aria-haspopup": "dialog", onclick: () => enlarge(clip, about) }, ...movie(clip, about));
  }

  // The thumbnail of a class example; null: it has none.
  function thumbnail(className, video) {
    const clip = example(className, video);
    return clip ? picture(clip, className) : null;
  }

  // A class example in a list: its thumbnail, or its name where there is none, with the link to its explanation.
  function ofVideo(className, video) {
    const clip = thumbnail(className, video);
    if (!clip) return explained.link(className, video, video) ?? element("span", { class: "no-preview" }, video);
    return element("span", { class: "thumb" }, clip, explained.link(className, video));
  }

  function enlarge(clip, about) {
    dialog ??= document.body.appendChild(element("dialog", { id: "clip", "aria-labelledby": "clip-title", onclick: (event) => { if (event.target === dialog) dialog.close(); } }));
    const pause = element("button", { type: "button", class: "quiet", onclick: () => set(dialog.classList.contains("still")) });
    function set(play) {
      dialog.classList.toggle("still", !play);
      pause.textContent = play ? "Pause" : "Play";
    }
    dialog.replaceChildren(
      element("header", {}, element("h2", { id: "clip-title" }, about, element("span", { class: "muted" }, ` ${clip.video}`)),
        element("div", { class: "dialog-buttons" }, pause, element("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => dialog.close() }, "✕"))),
      element("div", { class: "large preview" }, ...movie({ ...clip, width: clip.width, height: clip.height }, about)),
    );
    set(playing);
    dialog.showModal();
  }

  function setPlaying(value) {
    playing = value;
    document.documentElement.classList.toggle("paused", !playing);
    const button = document.getElementById("play");
    button.textContent = playing ? "❚❚" : "▶";
    button.setAttribute("aria-label", playing ? "Pause previews" : "Play previews");
  }

  // The button in the bar, and the two clips in each class's card.
  function build() {
    const button = element("button", { type: "button", class: "quiet", id: "play", onclick: () => setPlaying(!playing) });
    document.getElementById("theme").before(button);
    setPlaying(playing);
    for (const place of document.querySelectorAll(".driven-clips figure")) {
      const clip = example(place.dataset.class, place.dataset.video);
      if (clip) place.prepend(picture(clip, place.dataset.class));
    }
  }

  return { build, picture, thumbnail, ofVideo };
})();
