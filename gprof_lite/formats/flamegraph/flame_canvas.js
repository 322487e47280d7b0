"use strict";
/*
 * Draws a FlameModel on a canvas and turns pointer positions into nodes.
 *
 * The canvas is as large as what is seen of it, and sticks to the top of a scrolled box: a graph 5,000 frames deep is
 * 100,000 pixels high, more than any canvas can be. Only rows in sight are drawn, and of each row at most one node per
 * pixel, so the cost follows the screen and not the profile.
 */

const FRAME_FONT = '12px ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Consolas, monospace';
const ROW_HEIGHT = 20;
const SHADES = 5; // of each kind, so that neighbours of one kind can be told apart

class FlameCanvas {
  /** scroller: an empty element that may scroll vertically. */
  constructor(scroller) {
    this.scroller = scroller;
    this.canvas = document.createElement("canvas");
    this.spacer = document.createElement("div");
    this.spacer.className = "flame-spacer";
    this.spacer.append(this.canvas);
    scroller.replaceChildren(this.spacer);
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.model = null;
    this.rootAtBottom = true;
    this.focus = 0;
    this.selected = -1;
    this.hovered = -1;
    this.matches = null; // Uint8Array by name index
    this.belowSight = 0; // pixels of the graph under the lower edge of what is seen
    this.#readColours();
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#resized()).observe(scroller);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#readColours());
    this.#watchPixelRatio();
  }

  show(model) {
    this.model = model;
    this.focus = 0;
    this.selected = this.hovered = -1;
    this.matches = null;
    this.layOut();
  }

  /** After a change of the model or of the orientation: give the box its height and go to the root. */
  layOut() {
    const height = (this.model?.depth ?? 0) * ROW_HEIGHT;
    this.spacer.style.height = `${height}px`;
    this.scroller.style.setProperty("--graph-height", `${height}px`);
    this.belowSight = 0;
    this.#resized();
    if (!this.rootAtBottom) this.scroller.scrollTop = 0;
    this.requestDraw();
  }

  setFocus(node) {
    this.focus = node;
    this.reveal(node);
  }

  select(node) {
    this.selected = node;
    if (node >= 0) this.reveal(node);
    this.requestDraw();
  }

  hover(node) {
    if (node === this.hovered) return;
    this.hovered = node;
    this.requestDraw();
  }

  /** Scroll so that the node's row is in sight. */
  reveal(node) {
    const top = this.#rowTop(this.model.level[node]);
    const { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (top + ROW_HEIGHT > scrollTop + clientHeight) this.scroller.scrollTop = top + ROW_HEIGHT - clientHeight;
    this.requestDraw();
  }

  /** The node under a point of the window, or -1. */
  nodeAt(clientX, clientY) {
    if (!this.model || this.model.isEmpty) return -1;
    const box = this.canvas.getBoundingClientRect();
    const fromTop = Math.floor((clientY - box.top + this.scroller.scrollTop) / ROW_HEIGHT);
    const level = this.rootAtBottom ? this.model.depth - 1 - fromTop : fromTop;
    if (level < this.model.level[this.focus]) {
      const above = this.model.path(this.focus).find((node) => this.model.level[node] === level);
      return above ?? (level === 0 ? 0 : -1);
    }
    const x = this.model.x[this.focus] + ((clientX - box.left) / box.width) * this.model.total[this.focus];
    return this.#isInFocus(x) ? this.model.nodeAt(level, x) : -1;
  }

  /** Where a node is in the window: {left, top, width, height}; what lies outside of the view is cut off. */
  boxOf(node) {
    const box = this.canvas.getBoundingClientRect();
    const [left, right] = this.#extent(node, box.width);
    const top = box.top + this.#rowTop(this.model.level[node]) - this.scroller.scrollTop;
    return { left: box.left + left, top, width: right - left, height: ROW_HEIGHT };
  }

  requestDraw() {
    this.pendingDraw ??= requestAnimationFrame(() => {
      this.pendingDraw = undefined;
      this.draw();
    });
  }

  draw() {
    const { context, model, scroller } = this;
    const ratio = devicePixelRatio;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = this.colours.background;
    context.fillRect(0, 0, this.width, this.height);
    if (!model || model.isEmpty) return;
    context.font = FRAME_FONT;
    context.textBaseline = "middle";
    context.direction = "ltr";
    const first = Math.floor(scroller.scrollTop / ROW_HEIGHT);
    const last = Math.min(model.depth - 1, Math.floor((scroller.scrollTop + this.height) / ROW_HEIGHT));
    const above = new Map(this.model.path(this.focus).map((node) => [model.level[node], node])).set(0, 0);
    for (let row = first; row <= last; row += 1) {
      const level = this.rootAtBottom ? model.depth - 1 - row : row;
      const top = row * ROW_HEIGHT - scroller.scrollTop;
      if (level < model.level[this.focus]) this.#drawNode(above.get(level), 0, this.width, top, true);
      else this.#drawRow(level, top);
    }
    this.#drawOutline(this.hovered, this.colours.hovered, 1);
    this.#drawOutline(this.selected, this.colours.selected, 2);
  }

  #drawRow(level, top) {
    const { model, focus, width } = this;
    const from = model.x[focus];
    const scale = width / model.total[focus];
    const end = model.levelStart[level + 1];
    let drawnTo = 0; // nodes thinner than a pixel share one
    for (let node = model.firstEndingAfter(level, from); node < end; node += 1) {
      const left = (model.x[node] - from) * scale;
      if (left >= width) break;
      const right = left + model.total[node] * scale;
      if (right <= drawnTo) continue;
      // A node thinner than a pixel gets that pixel whole: half transparent ones would fade where most nodes are.
      const isThin = right - left < 1;
      drawnTo = isThin ? Math.floor(left) + 1 : right;
      this.#drawNode(node, isThin ? drawnTo - 1 : Math.max(left, 0), Math.min(drawnTo, width), top, false);
    }
  }

  #drawNode(node, left, right, top, isAbove) {
    const { context, model, colours } = this;
    const name = model.name[node];
    const matched = node > 0 && this.matches?.[name];
    const width = right - left;
    const isDim = isAbove || (this.matches && !matched);
    context.globalAlpha = isAbove ? 0.55 : isDim ? 0.35 : 1;
    context.fillStyle = matched ? colours.match : this.#colour(node, name);
    // A gap of half a pixel parts neighbours, as soon as there is something left to part.
    context.fillRect(left, top + 0.5, Math.max(width - (width > 2 ? 0.75 : 0), 0.5), ROW_HEIGHT - 1);
    context.globalAlpha = 1;
    if (width < 24) return;
    context.fillStyle = matched ? colours.matchText : isDim ? colours.dimText : colours.text;
    this.#drawLabel(name, left + 4, top + ROW_HEIGHT / 2 + 0.5, width - 8);
  }

  #drawLabel(name, x, y, room) {
    const fits = Math.floor(room / this.characterWidth);
    if (fits < 2) return;
    const { text, isPlain } = this.#label(name);
    let shown = text.length <= fits ? text : `${text.slice(0, fits - 1)}…`;
    // Only plain characters are all as wide as each other; others are measured and cut until they fit.
    while (!isPlain && shown.length > 2 && this.context.measureText(shown).width > room) {
      shown = `${shown.slice(0, Math.ceil(shown.length * 0.8) - 2)}…`;
    }
    this.context.fillText(shown, x, y);
  }

  #label(name) {
    this.labels ??= new Map();
    if (this.labelsOf !== this.model) {
      this.labels.clear();
      this.labelsOf = this.model;
    }
    let label = this.labels.get(name);
    if (!label) {
      // No screen shows more than this; names may have thousands of characters.
      const text = Wording.visible(Wording.withoutSuffix(this.model.names[name]).slice(0, 600));
      label = { text, isPlain: /^[\x20-\x7e\u00a1-\u024f]*$/.test(text) };
      this.labels.set(name, label);
    }
    return label;
  }

  #drawOutline(node, colour, thickness) {
    if (node < 0 || !this.#isShown(node)) return;
    const [left, right] = this.#extent(node, this.width);
    const top = this.#rowTop(this.model.level[node]) - this.scroller.scrollTop;
    this.context.strokeStyle = colour;
    this.context.lineWidth = thickness;
    const inset = thickness / 2;
    this.context.strokeRect(left + inset, top + inset, Math.max(right - left - thickness, 1), ROW_HEIGHT - thickness);
  }

  #isShown(node) {
    const { model, focus } = this;
    if (model.level[node] < model.level[focus]) return node === 0 || model.path(focus).includes(node);
    return this.#isInFocus(model.x[node]);
  }

  #isInFocus(x) {
    return x >= this.model.x[this.focus] && x < this.model.x[this.focus] + this.model.total[this.focus];
  }

  #extent(node, width) {
    const { model, focus } = this;
    const scale = width / model.total[focus];
    const left = (model.x[node] - model.x[focus]) * scale;
    return [Math.max(left, 0), Math.min(left + model.total[node] * scale, width)];
  }

  #rowTop(level) {
    return (this.rootAtBottom ? this.model.depth - 1 - level : level) * ROW_HEIGHT;
  }

  #colour(node, name) {
    const shades = this.colours.kinds[this.model.kind(node)];
    return shades[this.model.hashOfName[name] % SHADES];
  }

  #scrolled() {
    // A box that has just changed its height scrolls before it reports the change; that was not the user's doing.
    if (this.scroller.clientHeight === this.height) this.belowSight = this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight;
    this.requestDraw();
  }

  #resized() {
    // What stands at the bottom stays there: a taller toolbar must not push the root out of sight.
    if (this.rootAtBottom) this.scroller.scrollTop = this.scroller.scrollHeight - this.scroller.clientHeight - this.belowSight;
    this.width = Math.max(1, this.scroller.clientWidth);
    this.height = Math.max(1, this.scroller.clientHeight);
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${this.height}px`;
    this.canvas.width = Math.round(this.width * devicePixelRatio);
    this.canvas.height = Math.round(this.height * devicePixelRatio);
    this.context.font = FRAME_FONT;
    this.characterWidth = this.context.measureText("0").width;
    this.draw(); // at once: setting the size has emptied the canvas, and a later frame would show that
  }

  #watchPixelRatio() {
    // The query holds for one ratio only, so each change asks anew.
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener(
      "change",
      () => {
        this.#resized();
        this.#watchPixelRatio();
      },
      { once: true },
    );
  }

  #readColours() {
    const style = getComputedStyle(this.scroller);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colours = {
      background: read("surface"),
      text: read("frame-text"),
      dimText: read("frame-text-dim"),
      match: read("match"),
      matchText: read("match-text"),
      hovered: read("frame-hovered"),
      selected: read("frame-selected"),
      kinds: FRAME_KINDS.map(({ name }) => shadesOf(read(`kind-${name}`))),
    };
    if (this.model) this.requestDraw();
  }
}

/** "H S% L%" -> that colour in SHADES lightnesses around it. */
function shadesOf(hsl) {
  const [hue, saturation, lightness] = hsl.split(/\s+/).map(parseFloat);
  const step = 1.6;
  return Array.from({ length: SHADES }, (_, index) => {
    return `hsl(${hue} ${saturation}% ${lightness + (index - (SHADES - 1) / 2) * step}%)`;
  });
}
