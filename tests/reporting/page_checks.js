// What is wrong with a page as it stands in the browser, in one line each. One function, called
// by page_checks.py, which also chooses window, theme and medium.
(() => {
  const found = [];
  for (const folded of document.querySelectorAll("details")) folded.open = true;

  const parsed = (colour) => {
    const [r, g, b, a] = colour.match(/[\d.]+(e-\d+)?/g).map(Number);
    const unit = colour.startsWith("color(") ? 255 : 1;
    return { rgb: [r * unit, g * unit, b * unit], a: a === undefined ? 1 : a };
  };
  const over = (top, a, below) => top.map((c, i) => a * c + (1 - a) * below[i]);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => {
      const s = Math.min(c / 255, 1);
      return s <= 0.04045 ? s / 12.92 : ((s + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const chain = (element) => {
    const elements = [];
    for (let e = element; e; e = e.parentElement) elements.unshift(e);
    return elements;
  };
  const opacity = (element) =>
    chain(element).reduce((a, e) => a * Number(getComputedStyle(e).opacity), 1);

  // Backgrounds of all that surrounds an element, then the shapes of its drawing that lie under it.
  const ground = (element, x, y) => {
    let rgb = [255, 255, 255];
    for (const e of chain(element)) {
      const { rgb: own, a } = parsed(getComputedStyle(e).backgroundColor);
      rgb = over(own, a, rgb);
    }
    const drawing = element.closest("svg");
    if (!drawing) return rgb;
    for (const shape of drawing.querySelectorAll("path,rect,circle,polygon,image")) {
      const before = shape.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING;
      if (!before || shape.closest("defs,clipPath")) continue;
      const box = shape.getBoundingClientRect();
      if (x < box.left || x > box.right || y < box.top || y > box.bottom) continue;
      if (shape.tagName === "image") {
        found.push(`contrast: "${element.textContent}" is written on an image`);
        continue;
      }
      const style = getComputedStyle(shape);
      if (style.fill === "none" || style.visibility !== "visible") continue;
      const at = new DOMPoint(x, y).matrixTransform(shape.getScreenCTM().inverse());
      if (!shape.isPointInFill(at)) continue;
      const { rgb: own, a } = parsed(style.fill);
      rgb = over(own, a * Number(style.fillOpacity) * opacity(shape), rgb);
    }
    return rgb;
  };

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest("script,style,defs,title,desc")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = [...range.getClientRects()].find((r) => r.width > 0 && r.height > 0);
    if (!box || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const { rgb, a } = parsed(element.closest("svg") ? style.fill : style.color);
    const below = ground(element, box.left + box.width / 2, box.top + box.height / 2);
    const contrast = ratio(over(rgb, a * opacity(element), below), below);
    if (contrast < 4.5) {
      const words = node.textContent.trim().slice(0, 30);
      found.push(`contrast: ${contrast.toFixed(2)} of "${words}" in ${element.tagName}`);
    }
  }

  for (const picture of document.querySelectorAll("img,svg")) {
    const words = picture.getAttribute("alt") || picture.getAttribute("aria-label");
    const name = `${picture.tagName.toLowerCase()} "${(words || "").slice(0, 30)}"`;
    const box = picture.getBoundingClientRect();
    if (!words && !picture.querySelector(":scope > title")) found.push(`no words: ${name}`);
    if (box.width < 2 || box.height < 2 || !picture.checkVisibility({ visibilityProperty: true }))
      found.push(`not seen: ${name}`);
    if (picture.tagName === "IMG" && !picture.naturalWidth) found.push(`broken: ${name}`);
    if (picture.tagName === "svg" && !picture.getBBox().width) found.push(`empty: ${name}`);
  }

  const levels = [...document.querySelectorAll("h1,h2,h3,h4,h5,h6")].map((h) => +h.tagName[1]);
  if (levels.filter((level) => level === 1).length !== 1) found.push("headings: not one h1");
  levels.forEach((level, i) => {
    if (level > (i ? levels[i - 1] : 0) + 1) found.push(`headings: h${level} after ${levels[i - 1]}`);
  });

  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) found.push(`too wide: ${width} px in a window of ${innerWidth}`);
  return found;
})();
