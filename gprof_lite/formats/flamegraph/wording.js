"use strict";
/*
 * How numbers and names are worded.
 * All scripts of the viewer are classic scripts that share one scope: a file uses what the files before it declare.
 */

const Wording = {
  /** A weight in words: unit is "nanoseconds", "bytes", or anything else for a plain count. */
  weight(value, unit) {
    if (unit === "nanoseconds") return Wording.duration(value);
    if (unit === "bytes") return Wording.size(value);
    return Math.round(value).toLocaleString("en-US");
  },

  /** Nanoseconds -> "950 ns", "12.3 µs", "4.56 s", "7.89 min", "1.2 h". */
  duration(ns) {
    if (ns === 0) return "0 s";
    const steps = [[3.6e12, "h"], [6e10, "min"], [1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]];
    // A step later than its own size: 90 s reads better than 1.5 min.
    const [size, name] = steps.find(([size]) => Math.abs(ns) >= (size >= 6e10 ? 2 * size : size)) ?? steps.at(-1);
    return `${Wording.significant(ns / size)} ${name}`;
  },

  /** Bytes -> "17 B", "1.5 KiB", "2.25 MiB". */
  size(bytes) {
    const names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let power = 0;
    let value = bytes;
    while (Math.abs(value) >= 1024 && power < names.length - 1) {
      value /= 1024;
      power += 1;
    }
    return `${Wording.significant(value)} ${names[power]}`;
  },

  /** Three significant digits, but never fewer digits than the whole part has, and no zeros at the end. */
  significant(value) {
    if (value === 0) return "0";
    const whole = Math.max(0, Math.floor(Math.log10(Math.abs(value))));
    return Number(value.toFixed(Math.max(0, 2 - whole))).toLocaleString("en-US");
  },

  percent(part, whole) {
    if (!whole || !part) return "0 %";
    const share = (100 * part) / whole;
    if (share < 0.01) return "< 0.01 %";
    return `${share.toFixed(share < 10 ? 2 : 1)} %`;
  },

  /**
   * A name as it is shown. Characters that are invisible or that reorder their neighbours are spelled out, so that what
   * is read is what is there; copying gives the name itself.
   */
  visible(name) {
    return name.replace(
      /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]/g,
      (character) => `‹U+${character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}›`,
    );
  },

  /** A frame without the suffix of its kind, which the colour says already. */
  withoutSuffix(frame) {
    return /_\[[kjip]\]$/.test(frame) ? frame.slice(0, -4) : frame;
  },
};

/** Kinds of frames, in the order of the legend. `name` is the CSS variable that holds the colour: --kind-NAME. */
const FRAME_KINDS = [
  { name: "root", label: "root of stacks" },
  { name: "native", label: "native" },
  { name: "python", label: "Python" },
  { name: "jit", label: "JIT" },
  { name: "inlined", label: "inlined" },
  { name: "kernel", label: "kernel" },
  { name: "unknown", label: "unknown" },
];

/** The kind of a frame, as an index into FRAME_KINDS. Suffixes: FlameGraph's and gProfiler's; see model/frame.py. */
function frameKind(frame) {
  const suffix = frame.endsWith("]") ? frame.slice(-4) : "";
  const index = { "_[p]": 2, "_[j]": 3, "_[i]": 4, "_[k]": 5 }[suffix];
  if (index !== undefined) return index;
  return /^\[.*\]$/.test(frame) || frame === "other" ? 6 : 1;
}
const KIND_ROOT = 0;

/** A new element. Text goes in as textContent only: names from profiles never pass a parser of markup. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}
