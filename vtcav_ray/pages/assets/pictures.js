// Pictures to save: a chart as SVG, any part of the page (a table, a panel) as SVG, and both as PNG.

const pictures = (() => {
  const NS = "http://www.w3.org/2000/svg";

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

  function part(tag, attributes, text) {
    const node = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  }

  const copied = ["stroke-width", "stroke-opacity", "fill-opacity", "opacity", "font-size", "font-weight", "text-anchor", "stroke-dasharray", "paint-order", "stroke-linejoin"];

  // A copy of a chart that no longer needs the page's style sheet.
  function plainCopy(svg) {
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
    return copy;
  }

  const groundOf = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = plainColor(getComputedStyle(at).backgroundColor);
      if (!color.endsWith(",0.000)")) return color;
    }
    return "rgb(255,255,255)";
  };

  function finished(svg, width, height, ground) {
    svg.setAttribute("xmlns", NS);
    svg.setAttribute("font-family", "sans-serif");
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    svg.prepend(part("rect", { width: "100%", height: "100%", fill: ground }));
    return new XMLSerializer().serializeToString(svg);
  }

  // The SVG text of a chart.
  function ofChart(svg) {
    const box = svg.viewBox.baseVal;
    const [width, height] = box?.width ? [box.width, box.height] : [svg.clientWidth, svg.clientHeight];
    return finished(plainCopy(svg), width, height, groundOf(svg));
  }

  // The SVG text of any part of the page: its backgrounds, lines, words, charts and images, where they are now.
  function ofElement(root) {
    const around = root.getBoundingClientRect();
    const svg = part("svg", { viewBox: `0 0 ${around.width} ${around.height}` });
    const at = (box) => ({ x: box.left - around.left, y: box.top - around.top, width: box.width, height: box.height });
    (function draw(node) {
      const style = getComputedStyle(node);
      const box = node.getBoundingClientRect();
      if (style.display === "none" || style.visibility === "hidden" || node.matches(".save, .visually-hidden, button:not(.preview)")) return;
      if (node.matches("svg")) {
        const copy = plainCopy(node);
        for (const [name, value] of Object.entries(at(box))) copy.setAttribute(name, value);
        svg.append(copy);
        return;
      }
      const fill = plainColor(style.backgroundColor);
      if (node !== root && box.width && !fill.endsWith(",0.000)")) svg.append(part("rect", { ...at(box), rx: Math.min(parseFloat(style.borderTopLeftRadius) || 0, box.height / 2), fill }));
      if (parseFloat(style.borderBottomWidth)) svg.append(part("line", { x1: box.left - around.left, x2: box.right - around.left, y1: box.bottom - around.top, y2: box.bottom - around.top, stroke: plainColor(style.borderBottomColor) }));
      before(node, style, box);
      if (node.matches("img, canvas")) {
        const image = still(node);
        if (image) svg.append(part("image", { ...at(box), href: image }));
      }
      for (const child of node.childNodes) {
        if (child.nodeType === Node.TEXT_NODE) words(child, style);
        else if (child.nodeType === Node.ELEMENT_NODE) draw(child);
      }
    })(root);

    // Text that the style sheet puts before a node's own, such as a layer's name in a narrow table.
    function before(node, style, box) {
      const own = getComputedStyle(node, "::before");
      if (!/^".+"$/.test(own.content)) return;
      const size = parseFloat(own.fontSize);
      svg.append(part("text", { x: box.left - around.left + parseFloat(style.paddingLeft), y: box.top - around.top + parseFloat(style.paddingTop) + size, "font-size": size, "font-weight": own.fontWeight, fill: plainColor(own.color) }, own.content.slice(1, -1)));
    }

    // Word by word, where the browser broke the lines.
    function words(text, style) {
      const range = document.createRange();
      for (const { 0: word, index } of text.data.matchAll(/\S+/g)) {
        range.setStart(text, index);
        range.setEnd(text, index + word.length);
        const box = range.getBoundingClientRect();
        if (box.width > 1) svg.append(part("text", { x: box.left - around.left, y: box.top - around.top + 0.78 * box.height, "font-size": style.fontSize, "font-weight": style.fontWeight, textLength: box.width, fill: plainColor(style.color) }, word));
      }
    }
    return finished(svg, around.width, around.height, groundOf(root));
  }

  function still(node) {
    const [width, height] = node.matches("img") ? [node.naturalWidth, node.naturalHeight] : [node.width, node.height];
    if (!width || !height) return null;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").drawImage(node, 0, 0);
    return canvas.toDataURL("image/png");
  }

  const MOST_PIXELS = 1e8; // browsers refuse larger canvases
  const MOST_SIDE = 16384;

  // A PNG of an SVG text, twice as fine as the screen where that fits. The page's policy allows `data:` images only.
  async function png(text) {
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await image.decode();
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    const scale = Math.min(2, MOST_SIDE / Math.max(width, height), Math.sqrt(MOST_PIXELS / (width * height)));
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => { canvas.toBlob(done, "image/png"); });
  }

  return { ofChart, ofElement, png };
})();
