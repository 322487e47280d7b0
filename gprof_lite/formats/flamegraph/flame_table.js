"use strict";
/* The same profile as a table of functions: for those who cannot see a drawing, and for those who want the numbers. */

const ROWS_AT_ONCE = 100;

class FlameTable {
  /** onPick(name) is called when a function is chosen. */
  constructor(container, { onPick }) {
    this.onPick = onPick;
    this.order = { column: "self", ascending: false };
    this.limit = ROWS_AT_ONCE;
    this.functions = [];
    this.caption = make("caption");
    this.headings = {
      name: this.#heading("name", "Function"),
      self: this.#heading("self", "Self"),
      total: this.#heading("total", "Total"),
    };
    this.body = make("tbody");
    this.more = make("button", { type: "button", className: "button more" });
    this.more.addEventListener("click", () => {
      this.limit += 10 * ROWS_AT_ONCE;
      this.#fill();
    });
    const head = make("thead", {}, make("tr", {}, ...Object.values(this.headings)));
    container.replaceChildren(make("table", { className: "flame-table" }, this.caption, head, this.body), this.more);
  }

  #heading(column, text) {
    const button = make("button", { type: "button", textContent: text });
    button.addEventListener("click", () => this.#orderBy(column));
    return make("th", { scope: "col", className: column }, button);
  }

  #orderBy(column) {
    const again = this.order.column === column;
    this.order = { column, ascending: again ? !this.order.ascending : column === "name" };
    this.#fill();
  }

  /** test: null or an object with test(name), to show only some. */
  show(model, focus, test) {
    this.model = model;
    this.focus = focus;
    this.functions = model.topFunctions(focus).filter(({ name }) => !test || test.test(name));
    this.limit = ROWS_AT_ONCE;
    this.#fill();
  }

  #fill() {
    const { column, ascending } = this.order;
    const sign = ascending ? 1 : -1;
    const compare = { name: (a, b) => (a.name < b.name ? -1 : 1), self: (a, b) => a.self - b.self, total: (a, b) => a.total - b.total };
    const sorted = this.functions.toSorted((a, b) => sign * compare[column](a, b));
    for (const [name, heading] of Object.entries(this.headings)) {
      heading.ariaSort = name === column ? (ascending ? "ascending" : "descending") : "none";
    }
    const shown = sorted.slice(0, this.limit);
    const within = this.focus ? ` within ${Wording.visible(this.model.frame(this.focus))}` : "";
    this.caption.textContent = `${this.functions.length.toLocaleString("en-US")} functions${within}. Self: in the function itself; total: with all that it calls.`;
    this.body.replaceChildren(...shown.map((entry) => this.#row(entry)));
    this.more.hidden = sorted.length <= shown.length;
    this.more.textContent = `Show more of the ${(sorted.length - shown.length).toLocaleString("en-US")} others`;
  }

  #row({ name, index, self, total }) {
    const kind = FRAME_KINDS[this.model.kindOfName[index]];
    const button = make("button", { type: "button", className: "link", textContent: Wording.visible(Wording.withoutSuffix(name)) });
    button.dir = "ltr";
    button.addEventListener("click", () => this.onPick(name));
    const swatch = make("span", { className: `swatch ${kind.name}`, title: kind.label });
    return make(
      "tr",
      {},
      make("th", { scope: "row", className: "name" }, swatch, button, make("span", { className: "visually-hidden", textContent: ` (${kind.label})` })),
      this.#cell(self, "self"),
      this.#cell(total, "total"),
    );
  }

  #cell(weight, className) {
    const whole = this.model.total[this.focus];
    const bar = make("span", { className: "bar" });
    bar.style.width = `${whole ? (100 * weight) / whole : 0}%`;
    return make(
      "td",
      { className },
      make("span", { className: "weight", textContent: Wording.weight(weight, this.model.unit) }),
      make("span", { className: "share", textContent: Wording.percent(weight, whole) }),
      bar,
    );
  }
}
