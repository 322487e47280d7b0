"use strict";
/*
 * The flame graph with everything around it: tabs, search, breadcrumbs, details, legend, keys.
 *
 *   const viewer = new FlameViewer(element);      // fills the element
 *   viewer.show({ names, levels, unit, sampleType });   // again for newer data: zoom and search stay where they can
 *   viewer.onChange = () => ...;                  // viewer.searchText or viewer.rootAtBottom changed
 */

class FlameViewer {
  constructor(container) {
    this.onChange = () => {};
    this.model = null;
    this.pattern = null;
    this.#makeParts();
    container.replaceChildren(this.root);
    this.canvas = new FlameCanvas(this.scroller);
    this.table = new FlameTable(this.tablePanel, { onPick: (name) => this.#searchFor(name) });
    this.#listen();
    this.#openTab(this.graphTab);
  }

  get searchText() {
    return this.searchBox.value;
  }

  set searchText(text) {
    this.searchBox.value = text;
    this.#search();
  }

  get rootAtBottom() {
    return this.canvas.rootAtBottom;
  }

  set rootAtBottom(value) {
    this.canvas.rootAtBottom = value;
    this.orientation.textContent = value ? "Root on top" : "Root at bottom";
    if (this.model) this.canvas.layOut();
  }

  show(flamebearer) {
    const path = this.model ? this.model.pathNames(this.canvas.focus) : [];
    this.model = new FlameModel(flamebearer);
    this.canvas.show(this.model);
    this.tooltip.hide();
    this.zoom(this.model.find(path));
  }

  /** Make a node as wide as the view. Node 0 is everything. */
  zoom(node) {
    if (this.model.isEmpty) return this.#describe();
    this.canvas.setFocus(node);
    this.canvas.select(node || -1);
    this.resetButton.disabled = node === 0;
    this.#showCrumbs(node);
    this.#search();
  }

  #makeParts() {
    const button = (text, title) => make("button", { type: "button", className: "button", textContent: text, title });
    this.graphTab = make("button", { type: "button", role: "tab", id: "flame-tab", textContent: "Flame graph" });
    this.tableTab = make("button", { type: "button", role: "tab", id: "table-tab", textContent: "Top functions" });
    this.searchBox = make("input", { type: "search", placeholder: "Search: text or /regex/", spellcheck: false, autocomplete: "off" });
    this.searchBox.setAttribute("aria-label", "Search frames");
    this.matched = make("output", { className: "matched" });
    this.orientation = button("Root on top", "Turn the graph upside down");
    this.copyButton = button("Copy stack", "Copy the selected frame's stack (c)");
    this.resetButton = button("Reset zoom", "Show everything (Esc)");
    this.keysButton = button("?", "Reading and keys");
    this.keysButton.setAttribute("aria-label", "Reading and keys");
    this.crumbs = make("nav", { className: "crumbs", ariaLabel: "Zoomed to" });
    this.scroller = make("div", { className: "flame-scroller", tabIndex: 0, role: "application" });
    this.scroller.setAttribute("aria-roledescription", "flame graph");
    this.scroller.setAttribute("aria-label", "Flame graph. Arrow keys move, Enter zooms, c copies the stack. The tab Top functions holds the same as a table.");
    this.detail = make("div", { className: "detail", dir: "ltr" });
    this.detail.setAttribute("aria-live", "polite");
    this.legend = make("ul", { className: "legend", ariaLabel: "Colours" });
    this.tooltip = new Tooltip();
    this.menu = new ContextMenu();
    this.notice = new Notice();
    this.keys = makeKeysDialog();
    this.graphPanel = make("div", { className: "panel graph-panel", role: "tabpanel" }, this.crumbs, this.scroller, this.detail, this.legend);
    this.graphPanel.setAttribute("aria-labelledby", "flame-tab");
    this.tablePanel = make("div", { className: "panel table-panel", role: "tabpanel" });
    this.tablePanel.setAttribute("aria-labelledby", "table-tab");
    const tabs = make("div", { className: "tabs", role: "tablist" }, this.graphTab, this.tableTab);
    const actions = make("div", { className: "actions" }, this.orientation, this.copyButton, this.resetButton, this.keysButton);
    const bar = make("div", { className: "flame-bar" }, tabs, make("div", { className: "search" }, this.searchBox, this.matched), actions);
    this.root = make("section", { className: "flame" }, bar, this.graphPanel, this.tablePanel);
    this.root.append(this.tooltip.element, this.menu.element, this.notice.element, this.keys);
  }

  #listen() {
    const { scroller } = this;
    scroller.addEventListener("pointermove", (event) => this.#onHover(event));
    scroller.addEventListener("pointerleave", () => this.#endHover());
    scroller.addEventListener("scroll", () => this.#endHover(), { passive: true });
    scroller.addEventListener("click", (event) => this.#onClick(event));
    scroller.addEventListener("contextmenu", (event) => this.#onMenu(event));
    scroller.addEventListener("keydown", (event) => new FlameKeys(this).onKey(event));
    document.addEventListener("keydown", (event) => this.#onGlobalKey(event));
    this.searchBox.addEventListener("input", () => {
      this.#search();
      this.onChange();
    });
    this.searchBox.addEventListener("keydown", (event) => this.#onSearchKey(event));
    this.orientation.addEventListener("click", () => {
      this.rootAtBottom = !this.rootAtBottom;
      this.onChange();
    });
    this.copyButton.addEventListener("click", () => this.copyStack(this.#current()));
    this.resetButton.addEventListener("click", () => this.zoom(0));
    this.keysButton.addEventListener("click", () => this.keys.showModal());
    for (const tab of [this.graphTab, this.tableTab]) {
      tab.addEventListener("click", () => this.#openTab(tab));
      tab.addEventListener("keydown", (event) => {
        if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
        const other = tab === this.graphTab ? this.tableTab : this.graphTab;
        this.#openTab(other);
        other.focus();
      });
    }
  }

  #openTab(tab) {
    for (const [one, panel] of [[this.graphTab, this.graphPanel], [this.tableTab, this.tablePanel]]) {
      one.ariaSelected = String(one === tab);
      one.tabIndex = one === tab ? 0 : -1;
      panel.hidden = one !== tab;
    }
    this.#fillTable();
  }

  #fillTable() {
    // Only when it is looked at: counting every function of a large profile takes a moment.
    if (this.model && !this.tablePanel.hidden) this.table.show(this.model, this.canvas.focus, this.pattern);
  }

  // --- pointer ---

  #onHover(event) {
    const node = this.canvas.nodeAt(event.clientX, event.clientY);
    this.canvas.hover(node);
    this.scroller.classList.toggle("on-frame", node >= 0);
    if (node < 0) return this.tooltip.hide();
    this.tooltip.show(this.#fullName(node), this.#facts(node), event.clientX, event.clientY);
  }

  #endHover() {
    this.tooltip.hide();
    this.canvas.hover(-1);
  }

  #onClick(event) {
    const node = this.canvas.nodeAt(event.clientX, event.clientY);
    this.tooltip.hide();
    if (node >= 0) this.zoom(node);
  }

  #onMenu(event) {
    const node = this.canvas.nodeAt(event.clientX, event.clientY);
    if (node < 0) return;
    event.preventDefault();
    this.tooltip.hide();
    this.canvas.select(node);
    this.#describe();
    const entries = [
      ["Copy stack", () => this.copyStack(node)],
      ["Copy name", () => this.#copy(this.model.frame(node), "Name copied")],
      ["Search for this name", () => this.#searchFor(this.model.frame(node))],
      ["Zoom to this frame", () => this.zoom(node)],
    ];
    this.menu.show(entries, event.clientX, event.clientY, this.scroller);
  }

  // --- keys that work wherever the focus is ---

  #onGlobalKey(event) {
    const typing = event.target.closest?.("input, textarea, select, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !this.model) return;
    if (event.key === "/") {
      event.preventDefault();
      this.searchBox.focus();
      this.searchBox.select();
    } else if (event.key === "c") this.copyStack(this.#current());
    else if (event.key === "n" || event.key === "N") this.goToMatch(event.key === "n" ? 1 : -1);
    else if (event.key === "Escape") this.#stepBack();
  }

  #stepBack() {
    if (this.searchText) {
      this.searchText = "";
      this.onChange();
    } else if (this.model) this.zoom(0);
  }

  #onSearchKey(event) {
    if (event.key === "Escape") {
      event.preventDefault();
      this.#stepBack();
      this.scroller.focus();
    } else if (event.key === "Enter") {
      this.goToMatch(event.shiftKey ? -1 : 1);
      this.scroller.focus();
    }
  }

  // --- search ---

  #search() {
    this.matched.classList.remove("wrong");
    try {
      this.pattern = parseSearch(this.searchText);
      this.matched.textContent = "";
    } catch (error) {
      this.pattern = null;
      this.matched.textContent = error.message;
      this.matched.classList.add("wrong");
    }
    if (this.model) this.#showMatches();
  }

  #showMatches() {
    this.found = this.pattern ? this.model.search(this.pattern, this.canvas.focus) : null;
    this.canvas.matches = this.found?.names ?? null;
    this.canvas.requestDraw();
    if (this.found) {
      const { weight, nodes } = this.found;
      const share = Wording.percent(weight, this.model.total[this.canvas.focus]);
      this.matched.textContent = `${share} matched`;
      this.matched.title = `${Wording.weight(weight, this.model.unit)} in ${nodes.toLocaleString("en-US")} frames; a match inside a match counts once`;
    }
    this.#describe();
    this.#fillTable();
  }

  #searchFor(name) {
    this.#openTab(this.graphTab);
    this.searchText = `/^${name.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")}$/`; // this name, not all that contain it
    this.onChange();
  }

  /** Select the next (1) or previous (-1) matching frame below the zoomed one. */
  goToMatch(step) {
    if (!this.found?.nodes) return;
    const nodes = [];
    this.model.eachWithin(this.canvas.focus, (node) => node > 0 && this.found.names[this.model.name[node]] && nodes.push(node));
    const at = nodes.indexOf(this.canvas.selected);
    const next = at < 0 ? (step > 0 ? 0 : nodes.length - 1) : (at + step + nodes.length) % nodes.length;
    this.selectNode(nodes[next]);
  }

  // --- words about a frame ---

  selectNode(node) {
    this.canvas.select(node);
    this.#describe();
  }

  #current() {
    return this.canvas.selected >= 0 ? this.canvas.selected : this.canvas.focus;
  }

  #fullName(node) {
    return Wording.visible(this.model.frame(node));
  }

  #facts(node) {
    const { model } = this;
    const whole = model.total[0];
    const facts = [
      `${Wording.weight(model.total[node], model.unit)} total (${Wording.percent(model.total[node], whole)})`,
      `${Wording.weight(model.self[node], model.unit)} self (${Wording.percent(model.self[node], whole)})`,
    ];
    if (this.canvas.focus) facts.push(`${Wording.percent(model.total[node], model.total[this.canvas.focus])} of the zoomed frame`);
    if (node) facts.push(FRAME_KINDS[model.kind(node)].label);
    return facts;
  }

  #describe() {
    if (this.model.isEmpty) {
      this.detail.textContent = "This profile holds no samples.";
      this.legend.replaceChildren();
      return;
    }
    const node = this.#current();
    this.detail.replaceChildren(
      make("span", { className: "detail-name", textContent: this.#fullName(node) }),
      ...this.#facts(node).map((fact) => make("span", { className: "detail-fact", textContent: fact })),
    );
    this.#showLegend();
  }

  #showLegend() {
    if (this.legendOf === this.model) return;
    this.legendOf = this.model;
    const present = new Set();
    for (let node = 1; node < this.model.count; node += 1) present.add(this.model.kind(node));
    const entries = FRAME_KINDS.filter((_, kind) => present.has(kind));
    this.legend.replaceChildren(
      ...entries.map(({ name, label }) => make("li", {}, make("span", { className: `swatch ${name}` }), label)),
    );
  }

  #showCrumbs(focus) {
    const path = [0, ...this.model.path(focus)];
    // Deep paths: the outermost two and the last four.
    const shown = path.length > 7 ? [...path.slice(0, 2), -1, ...path.slice(-4)] : path;
    this.crumbs.hidden = focus === 0;
    this.crumbs.replaceChildren(
      ...shown.map((node) => {
        if (node < 0) return make("span", { className: "gap", textContent: `… ${path.length - 6} more …` });
        const text = Wording.visible(Wording.withoutSuffix(this.model.frame(node)));
        const crumb = make("button", { type: "button", className: "link", textContent: text, title: text, dir: "ltr" });
        if (node === focus) crumb.ariaCurrent = "true";
        crumb.addEventListener("click", () => this.zoom(node));
        return crumb;
      }),
    );
  }

  // --- copy ---

  /** The frames of the stack, root first, one a line of collapsed text would have them. */
  copyStack(node) {
    const names = this.model.pathNames(node);
    if (!names.length) return this.notice.show("Select a frame first");
    return this.#copy(names.join(";"), `Stack of ${names.length} frames copied`);
  }

  async #copy(text, notice) {
    this.notice.show((await copyText(text)) ? notice : "The browser did not allow copying");
  }
}
