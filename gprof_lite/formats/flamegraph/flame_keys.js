"use strict";

/** Keys that move about in the graph. Directions are those on the screen, whichever way up it is. */
class FlameKeys {
  constructor(viewer) {
    this.viewer = viewer;
    this.model = viewer.model;
    this.canvas = viewer.canvas;
  }

  onKey(event) {
    if (!this.model || this.model.isEmpty || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = {
      ArrowUp: () => (this.canvas.rootAtBottom ? this.#toCalled() : this.#toCaller()),
      ArrowDown: () => (this.canvas.rootAtBottom ? this.#toCaller() : this.#toCalled()),
      ArrowLeft: () => this.#toNeighbour(-1),
      ArrowRight: () => this.#toNeighbour(1),
      Enter: () => this.viewer.zoom(Math.max(this.canvas.selected, 0)),
      Backspace: () => this.viewer.zoom(Math.max(this.model.parent[this.canvas.focus], 0)),
      Home: () => this.viewer.selectNode(this.canvas.focus),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  get #from() {
    return this.canvas.selected >= 0 ? this.canvas.selected : this.canvas.focus;
  }

  #toCaller() {
    if (this.model.parent[this.#from] >= 0) this.viewer.selectNode(this.model.parent[this.#from]);
  }

  /** The widest of the called frames: the way along which most of the weight goes. */
  #toCalled() {
    const inSight = this.#from === 0 && this.canvas.focus ? this.model.path(this.canvas.focus).slice(0, 1) : this.model.children(this.#from);
    const widest = inSight.reduce((best, node) => (best < 0 || this.model.total[node] > this.model.total[best] ? node : best), -1);
    if (widest >= 0) this.viewer.selectNode(widest);
  }

  #toNeighbour(step) {
    const node = this.#from + step;
    const { model, canvas } = this;
    const isSameRow = model.level[node] === model.level[this.#from];
    const end = model.x[canvas.focus] + model.total[canvas.focus];
    const isInSight = model.level[node] >= model.level[canvas.focus] && model.x[node] >= model.x[canvas.focus] && model.x[node] < end;
    if (isSameRow && isInSight) this.viewer.selectNode(node);
  }
}
