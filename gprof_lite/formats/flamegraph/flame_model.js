"use strict";
/*
 * The tree behind a flame graph, as flat arrays: 100,000 nodes are a few megabytes and every pass is a plain loop.
 * No recursion anywhere: a stack may be thousands of frames deep. No DOM.
 */

class FlameModel {
  /**
   * Takes a flamebearer: names[], levels[][] of [x offset, total, self, name index] (see flamebearer.py).
   * Throws an Error in words when the numbers contradict each other.
   */
  constructor({ names, levels, unit = "count", sampleType = "" }) {
    if (!Array.isArray(names) || !Array.isArray(levels)) throw new Error("this is no flame graph: names or levels are missing");
    this.names = names.map(String);
    this.unit = unit;
    this.sampleType = sampleType;
    this.depth = levels.length;
    this.count = levels.reduce((sum, row) => sum + row.length / 4, 0);
    this.levelStart = new Int32Array(this.depth + 1); // nodes of level l: levelStart[l] .. levelStart[l + 1] - 1
    this.x = new Float64Array(this.count);
    this.total = new Float64Array(this.count);
    this.self = new Float64Array(this.count);
    this.name = new Int32Array(this.count);
    this.level = new Int32Array(this.count);
    this.parent = new Int32Array(this.count).fill(-1);
    this.kindOfName = Uint8Array.from(this.names, frameKind);
    this.hashOfName = Uint8Array.from(this.names, hashOf);
    // Whole numbers beyond 2^53 are rounded by JSON.parse already: let a child stick out of its parent by that much.
    const slack = levels[0]?.[1] > 2 ** 52 ? levels[0][1] * 1e-9 : 0;
    levels.forEach((row, level) => this.#readLevel(row, level, slack));
  }

  #readLevel(row, level, slack) {
    if (row.length % 4) throw new Error(`level ${level} of the flame graph is cut off`);
    let node = this.levelStart[level];
    let end = 0;
    let parent = level ? this.levelStart[level - 1] : -1;
    for (let i = 0; i < row.length; i += 4, node += 1) {
      this.x[node] = end + row[i];
      this.total[node] = row[i + 1];
      this.self[node] = row[i + 2];
      this.name[node] = row[i + 3];
      this.level[node] = level;
      end = this.x[node] + row[i + 1];
      if (!(row[i] >= 0 && row[i + 1] >= 0) || this.names[row[i + 3]] === undefined) {
        throw new Error(`level ${level} of the flame graph holds a bad node`);
      }
      if (level) {
        const parentsEnd = this.levelStart[level];
        while (parent < parentsEnd && this.#end(parent) + slack < end) parent += 1;
        if (parent === parentsEnd || this.x[parent] > this.x[node] + slack) throw new Error(`level ${level} of the flame graph has a node without a parent`);
        this.parent[node] = parent;
      }
    }
    this.levelStart[level + 1] = node;
  }

  #end(node) {
    return this.x[node] + this.total[node];
  }

  get isEmpty() {
    return this.count === 0 || this.total[0] === 0;
  }

  frame(node) {
    return this.names[this.name[node]];
  }

  /** The outermost frame of a stack is a process name in our profiles: no code, unless its suffix says so. */
  kind(node) {
    const kind = this.kindOfName[this.name[node]];
    return this.level[node] <= 1 && kind === 1 ? KIND_ROOT : kind;
  }

  /** Nodes from below the synthetic root to this one, root first. Empty for the root itself. */
  path(node) {
    const nodes = [];
    for (let at = node; at > 0; at = this.parent[at]) nodes.push(at);
    return nodes.reverse();
  }

  pathNames(node) {
    return this.path(node).map((at) => this.frame(at));
  }

  /** The node that these names lead to, as far as they lead. */
  find(pathNames) {
    let node = 0;
    for (const wanted of pathNames) {
      const child = this.children(node).find((at) => this.frame(at) === wanted);
      if (child === undefined) break;
      node = child;
    }
    return node;
  }

  children(node) {
    const found = [];
    const level = this.level[node] + 1;
    if (level >= this.depth) return found;
    for (let at = this.firstEndingAfter(level, this.x[node]); at < this.levelStart[level + 1]; at += 1) {
      if (this.parent[at] === node) found.push(at);
      else if (this.x[at] >= this.#end(node)) break;
    }
    return found;
  }

  /** The first node of a level that ends to the right of x; the level's end if there is none. */
  firstEndingAfter(level, x) {
    let low = this.levelStart[level];
    let high = this.levelStart[level + 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#end(middle) > x) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** The node of a level at x, or -1. */
  nodeAt(level, x) {
    if (level < 0 || level >= this.depth) return -1;
    const node = this.firstEndingAfter(level, x);
    return node < this.levelStart[level + 1] && this.x[node] <= x ? node : -1;
  }

  /** Calls visit(node) for a node and all its descendants, level by level. */
  eachWithin(focus, visit) {
    const [from, to] = [this.x[focus], this.#end(focus)];
    for (let level = this.level[focus]; level < this.depth; level += 1) {
      let node = this.firstEndingAfter(level, from);
      if (node === this.levelStart[level + 1] || this.x[node] >= to) return;
      for (; node < this.levelStart[level + 1] && this.x[node] < to; node += 1) visit(node);
    }
  }

  /**
   * Which frames match, and the weight of all stacks below focus that hold a match. A match inside a match adds nothing:
   * its weight is in the outer one's already.
   */
  search(pattern, focus = 0) {
    const names = Uint8Array.from(this.names, (name) => (pattern.test(name) ? 1 : 0));
    const covered = new Uint8Array(this.count);
    let weight = 0;
    let nodes = 0;
    for (let at = this.parent[focus]; at > 0; at = this.parent[at]) {
      if (names[this.name[at]]) covered[this.parent[focus]] = 1;
    }
    if (focus > 0 && covered[this.parent[focus]]) weight = this.total[focus];
    this.eachWithin(focus, (node) => {
      if (node === 0) return; // the synthetic root is no frame
      const inside = covered[this.parent[node]];
      const matches = names[this.name[node]];
      if (matches) nodes += 1;
      if (matches && !inside) weight += this.total[node];
      covered[node] = inside || matches ? 1 : 0;
    });
    return { names, weight, nodes };
  }

  /**
   * Weight by function below focus: [{name, self, total}], largest self first. A function that calls itself counts
   * once per stack: only its outermost node adds to total.
   */
  topFunctions(focus = 0) {
    const self = new Float64Array(this.names.length);
    const total = new Float64Array(this.names.length);
    const open = new Int32Array(this.names.length); // how often the name stands on the path being walked
    const pending = [focus];
    while (pending.length) {
      const node = pending.pop();
      if (node < 0) {
        open[this.name[~node]] -= 1;
        continue;
      }
      const name = this.name[node];
      if (node > 0) {
        // Node 0 is the synthetic root, no function; a real one may have its name.
        self[name] += this.self[node];
        if (open[name] === 0) total[name] += this.total[node];
        open[name] += 1;
      }
      if (node > 0) pending.push(~node);
      for (const child of this.children(node)) pending.push(child); // no spread: there may be more than a call can take
    }
    return this.names
      .map((name, index) => ({ name, index, self: self[index], total: total[index] }))
      .filter(({ total }) => total > 0)
      .sort((a, b) => b.self - a.self || b.total - a.total || (a.name < b.name ? -1 : 1));
  }
}

/** A small number that stays the same for a name, so that a function keeps its shade from one profile to the next. */
function hashOf(name) {
  let hash = 7;
  for (let i = 0; i < Math.min(name.length, 80); i += 1) hash = (hash * 31 + name.charCodeAt(i)) % 65521;
  return hash % 251;
}

/**
 * What was typed into the search box: /regular expression/ or a plain part of a name, both without regard to case.
 * Returns null for nothing; throws an Error in words for a bad expression.
 */
function parseSearch(text) {
  if (!text.trim()) return null;
  const [, expression] = text.match(/^\/(.+?)\/?$/) ?? [];
  if (expression === undefined || expression === "/") {
    const part = text.trim().toLowerCase();
    return { test: (name) => name.toLowerCase().includes(part) };
  }
  try {
    return new RegExp(expression, "i");
  } catch (error) {
    throw new Error(`not a regular expression: ${error.message.replace(/^.*: /, "")}`);
  }
}
