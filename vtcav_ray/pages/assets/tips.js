// Values on hover and on keyboard focus, at once. The browser's own tooltips (`title`) wait for about a second.
//
// A node with the attribute `data-tip` or the property `tip` (a function) has one.

const tips = (() => {
  const box = document.createElement("div");
  box.id = "tip";
  box.setAttribute("role", "tooltip");
  box.popover = "manual"; // in the top layer, so also above an open dialog
  document.body.append(box);
  let owner = null;

  function textOf(target) {
    for (let node = target; node && node !== document.body; node = node.parentElement) {
      const text = node.dataset?.tip ?? node.tip?.();
      if (text) return [node, text];
    }
    return [null, ""];
  }

  function show(target, x, y) {
    const [node, text] = textOf(target);
    if (!node) return hide();
    if (node !== owner) {
      owner = node;
      box.textContent = text;
      if (box.matches(":popover-open")) box.hidePopover();
      box.showPopover(); // shown last, it is the topmost
    }
    const [width, height] = [box.offsetWidth, box.offsetHeight];
    box.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 4))}px`;
    box.style.top = `${y + 16 + height > innerHeight ? Math.max(4, y - height - 10) : y + 16}px`;
  }

  function hide() {
    owner = null;
    if (box.matches(":popover-open")) box.hidePopover();
  }

  addEventListener("pointerover", (event) => { if (event.pointerType !== "touch" && !box.contains(event.target)) show(event.target, event.clientX, event.clientY); });
  addEventListener("focusin", (event) => {
    if (!event.target.matches(":focus-visible")) return;
    const place = event.target.getBoundingClientRect();
    show(event.target, place.left, place.bottom);
  });
  addEventListener("focusout", hide);
  addEventListener("scroll", hide, { capture: true, passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.documentElement.addEventListener("pointerleave", hide);

  // Move the `<title>` children of a chart's marks to `data-tip`.
  function ofChart(svg) {
    for (const title of svg.querySelectorAll("title")) {
      title.parentElement.dataset.tip = title.textContent;
      title.remove();
    }
  }

  return { hide, ofChart };
})();
