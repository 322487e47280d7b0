"use strict";
/* What lies over a flame graph for a moment: the tooltip, the context menu, the short notice, the list of keys. */

class Tooltip {
  constructor() {
    this.name = make("div", { className: "tip-name", dir: "ltr" });
    this.facts = make("div", { className: "tip-facts" });
    this.element = make("div", { className: "tip", hidden: true, role: "tooltip" }, this.name, this.facts);
  }

  /** Show name and facts (texts) beside a point of the window, inside of the window. */
  show(name, facts, x, y) {
    this.name.textContent = name;
    this.facts.replaceChildren(...facts.map((fact) => make("span", { textContent: fact })));
    this.element.hidden = false;
    placeAt(this.element, x + 14, y + 18);
  }

  hide() {
    this.element.hidden = true;
  }
}

class ContextMenu {
  constructor() {
    this.element = make("div", { className: "menu", role: "menu", hidden: true });
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.element.addEventListener("focusout", (event) => {
      if (!this.element.contains(event.relatedTarget)) this.hide();
    });
  }

  /** entries: [text, action] pairs. Focus returns to `from` afterwards. */
  show(entries, x, y, from) {
    this.from = from;
    const buttons = entries.map(([text, action]) => {
      const button = make("button", { type: "button", role: "menuitem", textContent: text });
      button.addEventListener("click", () => {
        this.hide();
        from.focus();
        action();
      });
      return button;
    });
    this.element.replaceChildren(...buttons);
    this.element.hidden = false;
    placeAt(this.element, x, y);
    buttons[0].focus();
  }

  hide() {
    this.element.hidden = true;
  }

  #onKey(event) {
    const buttons = [...this.element.children];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length).focus();
    else if (event.key === "Escape") {
      this.hide();
      this.from.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

class Notice {
  constructor() {
    this.element = make("div", { className: "notice", role: "status" });
  }

  show(text) {
    this.element.textContent = text;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (this.element.textContent = ""), 2500);
  }
}

function makeKeysDialog() {
  const keys = [
    ["Click, Enter", "zoom to the frame"],
    ["Esc", "leave search, then zoom out"],
    ["Backspace", "zoom out by one frame"],
    ["Arrows", "go to caller, called frames and neighbours"],
    ["/", "search; n and N go to the next and previous match"],
    ["c", "copy the stack"],
    ["Right click", "more to do with a frame"],
  ];
  const rows = keys.flatMap(([key, effect]) => [make("dt", { textContent: key }), make("dd", { textContent: effect })]);
  const close = make("button", { type: "button", className: "button", textContent: "Close", autofocus: true });
  const about =
    "The width of a frame is its share of the total; a frame stands on the one that called it. Neighbours are sorted by name, not by time.";
  const dialog = make(
    "dialog",
    { className: "keys" },
    make("h2", { textContent: "Reading and keys" }),
    make("p", { textContent: about }),
    make("dl", {}, ...rows),
    close,
  );
  close.addEventListener("click", () => dialog.close());
  return dialog;
}

function placeAt(element, x, y) {
  const { width, height } = element.getBoundingClientRect();
  const left = Math.max(4, Math.min(x, innerWidth - width - 8));
  const top = y + height > innerHeight - 8 ? Math.max(4, y - height - 28) : y;
  element.style.left = `${left}px`;
  element.style.top = `${top}px`;
}

/** Resolves to whether the text is on the clipboard now. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // plain http to another host has no navigator.clipboard
  }
}

function copyBySelection(text) {
  const area = make("textarea", { value: text, className: "visually-hidden" });
  const before = document.activeElement;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  before?.focus();
  return copied;
}
