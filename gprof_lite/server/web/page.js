"use strict";
/*
 * The server's page: choose service, profile and time, see the flame graph. The address of the page says what it shows:
 * ?service=&type=&from=&until=&search=&root=top, so it can be sent to someone else.
 */

const FOLLOW_EVERY_MS = 15_000;
const LOOK_AGAIN_EVERY_MS = 5_000; // while there is nothing to show yet
const DEFAULT_RANGE = { from: "now-1h", until: "now" };

class Page {
  constructor() {
    this.part = Object.fromEntries(
      ["choices", "service", "type", "range", "custom", "from", "until", "refresh", "follow", "summary", "headline", "timeline", "message", "flame"].map(
        (id) => [id, document.getElementById(id)],
      ),
    );
    this.part.flame.hidden = false; // the viewer measures its place
    this.viewer = new FlameViewer(this.part.flame);
    this.part.flame.hidden = true;
    this.timeline = new Timeline(this.part.timeline, (from, until) => this.#go({ from: String(from), until: String(until) }));
    this.viewer.onChange = () => this.#remember({ search: this.viewer.searchText, root: this.viewer.rootAtBottom ? "" : "top" }, true);
    this.#listen();
    this.#readAddress();
  }

  #listen() {
    const { part } = this;
    part.choices.addEventListener("submit", (event) => {
      event.preventDefault();
      this.load();
    });
    part.service.addEventListener("change", () => this.#go({ service: part.service.value }));
    part.type.addEventListener("change", () => this.#go({ type: part.type.value }));
    part.range.addEventListener("change", () => this.#chooseRange());
    part.from.addEventListener("change", () => this.#chooseCustom());
    part.until.addEventListener("change", () => this.#chooseCustom());
    part.follow.addEventListener("change", () => this.#lookAgain(part.follow.checked ? FOLLOW_EVERY_MS : 0));
    addEventListener("popstate", () => {
      this.#readAddress();
      this.load();
    });
  }

  // --- what is chosen, and the address that says so ---

  #readAddress() {
    const given = new URLSearchParams(location.search);
    this.wanted = {
      service: given.get("service") ?? "",
      type: given.get("type") ?? "",
      from: given.get("from") || DEFAULT_RANGE.from,
      until: given.get("until") || DEFAULT_RANGE.until,
      search: given.get("search") ?? "",
      root: given.get("root") ?? "",
    };
    this.viewer.searchText = this.wanted.search;
    this.viewer.rootAtBottom = this.wanted.root !== "top";
    this.#showRange();
  }

  #remember(change, replace = false) {
    Object.assign(this.wanted, change);
    const said = Object.entries(this.wanted).filter(([key, value]) => value && value !== DEFAULT_RANGE[key]);
    const address = said.length ? `?${new URLSearchParams(said)}` : location.pathname;
    history[replace ? "replaceState" : "pushState"](null, "", address);
  }

  #go(change) {
    this.#remember(change);
    this.#showRange();
    return this.load();
  }

  #showRange() {
    const { part, wanted } = this;
    const isListed = wanted.until === "now" && [...part.range.options].some(({ value }) => value === wanted.from);
    part.range.value = isListed ? wanted.from : "custom";
    part.custom.hidden = isListed;
    if (isListed) return;
    part.from.value = inputTime(wanted.from);
    part.until.value = inputTime(wanted.until);
  }

  #chooseRange() {
    if (this.part.range.value !== "custom") return this.#go({ from: this.part.range.value, until: "now" });
    const now = Math.floor(Date.now() / 1000);
    return this.#go({ from: String(now - 3600), until: String(now) });
  }

  #chooseCustom() {
    const [from, until] = [this.part.from, this.part.until].map(({ value }) => Math.floor(new Date(value).getTime() / 1000));
    if (Number.isNaN(from) || Number.isNaN(until)) return undefined; // still being typed
    if (from >= until) return this.#say("The range ends before it begins", "Choose an end that is later than the start.");
    return this.#go({ from: String(from), until: String(until) });
  }

  // --- loading ---

  async load() {
    this.loading?.abort();
    const loading = (this.loading = new AbortController());
    clearTimeout(this.timer);
    document.body.classList.add("busy");
    try {
      await this.#loadSeries(loading.signal);
    } catch (error) {
      if (loading.signal.aborted) return; // a newer request has taken its place
      if (!(error instanceof SourceError)) {
        this.#say("This page has a fault", error.message);
        throw error;
      }
      this.#say("That did not work", error.message, { again: error.mayPass });
    } finally {
      if (this.loading === loading) {
        document.body.classList.remove("busy");
        if (this.part.follow.checked) this.#lookAgain(FOLLOW_EVERY_MS);
      }
    }
  }

  async #loadSeries(signal) {
    const series = await ProfileSource.series(this.wanted, signal);
    this.#offer(series);
    const type = this.part.type.value;
    if (!type || !series.length) return this.#sayEmpty();
    const answer = await ProfileSource.profile({ ...this.wanted, type }, signal);
    return this.#show(answer, type);
  }

  /** Fill the two lists; what was chosen stays in them even when the range holds none of it. */
  #offer(series) {
    const { part, wanted } = this;
    const services = new Set(series.map(({ service }) => service));
    if (wanted.service) services.add(wanted.service);
    fillSelect(part.service, [["", "All services"], ...[...services].sort().map((name) => [name, Wording.visible(name)])], wanted.service);
    const types = new Set(series.filter(({ service }) => !wanted.service || service === wanted.service).map(({ type }) => type));
    if (wanted.type) types.add(wanted.type);
    const sorted = [...types].sort((a, b) => b.startsWith("process_cpu:cpu:") - a.startsWith("process_cpu:cpu:") || (a < b ? -1 : 1));
    const entries = sorted.map((type) => [type, typeWords(type)]);
    fillSelect(part.type, entries.length ? entries : [["", "none yet"]], wanted.type || sorted[0]);
    part.type.disabled = sorted.length === 0;
  }

  #show({ flamebearer, timeline }, type) {
    const unit = typeUnit(type);
    if (!flamebearer.numTicks) return this.#sayEmpty();
    const { part } = this;
    part.message.hidden = true;
    part.summary.hidden = part.flame.hidden = false;
    this.viewer.show({ ...flamebearer, unit, sampleType: type });
    part.timeline.hidden = !timeline?.samples?.length;
    if (!part.timeline.hidden) this.timeline.show(timeline, unit);
    const who = this.wanted.service || "all services";
    part.headline.replaceChildren(
      make("strong", { textContent: Wording.weight(flamebearer.numTicks, unit) }),
      ` of ${typeWords(type)}, ${Wording.visible(who)}`,
    );
    document.title = `${Wording.visible(who)}: ${typeWords(type)} – gprof-lite`;
    return undefined;
  }

  // --- when there is nothing to show ---

  #sayEmpty() {
    const command = `sudo gprof-lite run --server ${location.origin}`;
    const isLive = this.wanted.until === "now";
    const words = isLive
      ? "An agent sends its first profile at the end of its first window. If none runs yet, start one:"
      : "Choose another time, or another service. To collect profiles, start an agent:";
    this.#say("No profiles here yet", words, { command, wider: this.wanted.from !== "now-24h", again: isLive });
  }

  #say(title, words, { command, wider, again } = {}) {
    const { part } = this;
    part.summary.hidden = part.flame.hidden = true;
    part.message.hidden = false;
    const more = [];
    if (command) more.push(make("pre", {}, make("code", { textContent: command })));
    if (wider) {
      const button = make("button", { type: "button", className: "button", textContent: "Look at the last 24 hours" });
      button.addEventListener("click", () => this.#go({ from: "now-24h", until: "now" }));
      more.push(button);
    }
    if (again) {
      more.push(make("p", { className: "soft", textContent: `This page looks again every ${LOOK_AGAIN_EVERY_MS / 1000} seconds.` }));
      this.#lookAgain(LOOK_AGAIN_EVERY_MS);
    }
    part.message.replaceChildren(make("h1", { textContent: title }), make("p", { textContent: words }), ...more);
  }

  #lookAgain(afterMs) {
    clearTimeout(this.timer);
    if (afterMs) this.timer = setTimeout(() => (document.hidden ? this.#lookAgain(afterMs) : this.load()), afterMs);
  }
}

function fillSelect(select, entries, chosen) {
  const options = entries.map(([value, text]) => make("option", { value, textContent: text, selected: value === chosen }));
  select.replaceChildren(...options);
}

/** Seconds since 1970 as a datetime-local input wants it, in local time. Anything else ("now-2h") as empty. */
function inputTime(text) {
  const seconds = /^\d{9,10}$/.test(text) ? Number(text) : NaN;
  if (Number.isNaN(seconds)) return "";
  const at = new Date(seconds * 1000);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

new Page().load();
