"use strict";
/* How the weight is spread over the time range: bars, and a way to choose a part of the range by dragging over them. */

const TIMELINE_HEIGHT = 56;

class Timeline {
  /** onChoose(from, until): seconds since 1970, called after a drag. */
  constructor(container, onChoose) {
    this.canvas = make("canvas", { className: "timeline-bars", role: "img" });
    this.chosen = make("div", { className: "timeline-chosen", hidden: true });
    this.start = make("time");
    this.hint = make("span", { className: "timeline-hint" });
    this.end = make("time");
    const axis = make("div", { className: "timeline-axis" }, this.start, this.hint, this.end);
    this.box = make("div", { className: "timeline-box" }, this.canvas, this.chosen);
    container.replaceChildren(this.box, axis);
    this.onChoose = onChoose;
    this.box.addEventListener("pointerdown", (event) => this.#begin(event));
    this.box.addEventListener("pointermove", (event) => this.#move(event));
    this.box.addEventListener("pointerup", (event) => this.#finish(event));
    this.box.addEventListener("pointercancel", () => this.#cancel());
    this.box.addEventListener("pointerleave", () => this.#sayPeak());
    new ResizeObserver(() => this.#draw()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** timeline: {startTime (s), samples[], durationDelta (s)} of the render answer. */
  show({ startTime, samples, durationDelta }, unit) {
    this.from = startTime;
    this.step = durationDelta;
    this.samples = samples;
    this.unit = unit;
    const end = startTime + samples.length * durationDelta;
    for (const [element, at] of [[this.start, startTime], [this.end, end]]) {
      element.textContent = wordTime(at);
      element.dateTime = new Date(at * 1000).toISOString();
    }
    this.canvas.ariaLabel = `Over time. ${this.#peak()}`;
    this.#sayPeak();
    this.#draw();
  }

  /** In the unit of the profile, not per second: a profile counts where it begins, and may be longer than a step. */
  #peak() {
    const most = this.samples.reduce((sofar, sample) => Math.max(sofar, sample), 0);
    return `highest bar ${Wording.weight(most, this.unit)}`;
  }

  #sayPeak() {
    if (this.samples) this.hint.textContent = `${this.#peak()} · drag to choose a part`;
  }

  #draw() {
    if (!this.samples) return;
    const { canvas } = this;
    const width = this.box.clientWidth;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${TIMELINE_HEIGHT}px`;
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(TIMELINE_HEIGHT * devicePixelRatio);
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    const style = getComputedStyle(this.box);
    context.fillStyle = style.getPropertyValue("--line");
    context.fillRect(0, TIMELINE_HEIGHT - 1, width, 1);
    context.fillStyle = style.getPropertyValue("--accent");
    const most = this.samples.reduce((sofar, sample) => Math.max(sofar, sample), 1);
    const step = width / this.samples.length;
    this.samples.forEach((sample, index) => {
      if (!sample) return;
      const height = Math.max(1, (sample / most) * (TIMELINE_HEIGHT - 4));
      context.fillRect(index * step, TIMELINE_HEIGHT - height, Math.max(step - (step > 4 ? 1 : 0), 1), height);
    });
  }

  // --- choosing ---

  #place(event) {
    const box = this.box.getBoundingClientRect();
    return Math.min(Math.max(event.clientX - box.left, 0), box.width);
  }

  #time(place) {
    return this.from + (place / this.box.clientWidth) * this.samples.length * this.step;
  }

  #begin(event) {
    if (!this.samples || event.button !== 0) return;
    this.box.setPointerCapture(event.pointerId);
    this.began = this.#place(event);
  }

  #move(event) {
    if (!this.samples?.length) return;
    const place = this.#place(event);
    if (this.began === undefined) {
      const index = Math.min(this.samples.length - 1, Math.floor((this.#time(place) - this.from) / this.step));
      this.hint.textContent = `${wordTime(this.from + index * this.step)} · ${Wording.weight(this.samples[index], this.unit)}`;
      return;
    }
    const [left, right] = [Math.min(place, this.began), Math.max(place, this.began)];
    this.chosen.hidden = false;
    this.chosen.style.left = `${left}px`;
    this.chosen.style.width = `${right - left}px`;
    this.hint.textContent = `${wordTime(this.#time(left))} to ${wordTime(this.#time(right))}`;
  }

  #finish(event) {
    if (this.began === undefined) return;
    const [left, right] = [this.began, this.#place(event)].sort((a, b) => a - b);
    this.#cancel();
    if (right - left < 4) return; // a click, no drag
    const from = Math.floor(this.#time(left));
    this.onChoose(from, Math.max(from + 1, Math.ceil(this.#time(right))));
  }

  #cancel() {
    this.began = undefined;
    this.chosen.hidden = true;
  }
}

/** Seconds since 1970 as local time, with the day when it is not today. */
function wordTime(seconds) {
  const at = new Date(seconds * 1000);
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? time : `${at.toLocaleDateString([], { month: "short", day: "numeric" })} ${time}`;
}
