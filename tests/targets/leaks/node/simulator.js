// memory_leak_simulator for node: options, output and rules as in native/simulator.c.
"use strict";
const fs = require("node:fs");
const { EventEmitter } = require("node:events");

const LIMIT_BYTES = 2 * 2 ** 30;
const options = { kind: "", "leak-rate": "1MB/s", duration: "60", seed: "1", churn: "1000" };
const started = process.hrtime.bigint();
const requests = new Array(256);
let state = 1;
let [leakedBytes, leakedBlocks, heldBytes, work] = [0, 0, 0, 0];

const elapsed = () => Number(process.hrtime.bigint() - started) / 1e9;

function fail(words) {
  console.error(`memory_leak_simulator: ${words}`);
  process.exit(2);
}

// mulberry32: the generator of Tommy Ettinger, 2017; Math.random takes no seed.
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const between = (low, high) => low + Math.floor(random() * (high - low + 1));

function leaked(n) {
  leakedBytes += n;
  leakedBlocks++;
  if (leakedBytes + heldBytes > LIMIT_BYTES) fail("would hold more than 2 GB; stopped");
}
const owed = () => rate * elapsed() - leakedBytes;

function churn(n) {
  for (let i = 0; i < n; i++) {
    const size = between(2, 40);
    requests[between(0, 255)] = { path: "/" + "x".repeat(size), fields: new Array(size).fill(size), n: i };
  }
  work += n;
}

// --- leaking ---

const kept = [];
function siteArray() {
  kept.push(new Array(60).fill(random()));
  leaked(60 * 8 + 48);
}
const byKey = new Map();
function siteMap() {
  const words = Array.from({ length: 20 }, random);
  byKey.set(`key ${random()}`, words);
  leaked(20 * 8 + 48 + 80);
}
function siteClosure() {
  const body = new Array(between(50, 200)).fill(1.5);
  kept.push(() => body.length);
  leaked(body.length * 8 + 48 + 64);
}
function siteTimer() {
  const body = new Array(between(50, 200)).fill(2.5);
  setInterval(() => body.length, 3600_000).unref();
  leaked(body.length * 8 + 48 + 250);
}
const bus = new EventEmitter();
bus.setMaxListeners(0);
function siteListener() {
  const body = new Array(between(50, 200)).fill(3.5);
  bus.on("never", () => body.length);
  leaked(body.length * 8 + 48 + 64);
}
function siteBuffer() {
  const size = between(10_000, 60_000);
  kept.push(Buffer.alloc(size, 1));
  leaked(size);
}
const paced = (site) => () => {
  while (owed() > 64_000) {
    site();
    work++;
  }
};

// --- healthy ---

let nPut = 0;
function stepCache() {
  for (; nPut < elapsed() * 400; nPut++) {
    byKey.set(nPut, new Array(between(100, 400)).fill(0.5));
    if (byKey.size > 8000) byKey.delete(byKey.keys().next().value);
  }
}
function stepLazy() {
  // Much garbage that lives just long enough to reach the old generation, which is collected rarely.
  for (let i = 0; i < 20; i++) {
    kept.push(new Array(200).fill(random()));
  }
  if (kept.length > 12_000) kept.splice(0, 6_000);
}
const pool = [];
function stepBufferPool() {
  const wanted = Math.floor(Math.min(1, elapsed() / 12) * 200);
  const taken = [];
  for (let i = 0; i < wanted; i++) taken.push(pool.pop() ?? Buffer.alloc(65_536, 1));
  pool.push(...taken);
}
function stepTimers() {
  for (let i = 0; i < 5; i++) {
    const body = new Array(200).fill(2.5);
    setTimeout(() => body.length, between(100, 8000)).unref();
  }
}

const LEAKING = {
  node_array: paced(siteArray),
  node_map: paced(siteMap),
  node_closures: paced(siteClosure),
  node_timers: paced(siteTimer),
  node_listeners: paced(siteListener),
  node_buffers: paced(siteBuffer),
};
const HEALTHY = {
  node_steady: () => {},
  node_cache20: stepCache,
  node_lazy: stepLazy,
  node_buffer_pool: stepBufferPool,
  node_timeouts: stepTimers,
};

function rateOf(text) {
  const match = /^([\d.]+)([GMKk]?B?)(?:\/(?:s|(\d+)min))?$/.exec(text);
  if (!match) fail("--leak-rate wants a number and a unit, like 10MB/s or 5MB/5min");
  const unit = { G: 1e9, M: 1e6, K: 1e3, k: 1e3 }[match[2][0]] ?? 1;
  return (Number(match[1]) * unit) / (match[3] ? 60 * Number(match[3]) : 1);
}

for (let i = 2; i + 1 < process.argv.length; i += 2) {
  const name = process.argv[i].replace(/^--/, "");
  if (!(name in options)) fail(`options: ${Object.keys(options).map((each) => `--${each}`).join(" ")}`);
  options[name] = process.argv[i + 1];
}
const rate = rateOf(options["leak-rate"]);
const duration = Number(options.duration);
state = Number(options.seed) | 0;
const leaks = options.kind in LEAKING;
const step = LEAKING[options.kind] ?? HEALTHY[options.kind];
if (!step) fail("this program has no such --kind");
if (leaks && rate * duration > LIMIT_BYTES) fail("this rate would leak more than 2 GB in this duration");

const parent = process.ppid;
let done = 0;
function end() {
  clearInterval(ticker);
  const used = process.cpuUsage();
  const anon = /RssAnon:\s+(\d+)/.exec(fs.readFileSync("/proc/self/status", "utf8"));
  const truth = {
    kind: options.kind,
    leaks,
    leaked_bytes: leakedBytes,
    leaked_blocks: leakedBlocks,
    held_bytes: heldBytes,
    work,
    cpu_s: (used.user + used.system) / 1e6,
    wall_s: elapsed(),
    anon_bytes: Number(anon[1]) * 1024,
  };
  fs.writeSync(1, `${JSON.stringify(truth)}\n`);
  process.exit(0);
}
const ticker = setInterval(() => {
  const due = elapsed() * Number(options.churn) - done;
  done = elapsed() * Number(options.churn);
  churn(Math.floor(Math.min(due, Number(options.churn) / 10)));
  step();
  if (process.ppid !== parent) process.exit(1); // node has no prctl: it looks itself
  if (elapsed() >= duration) end();
}, 10);
process.on("SIGTERM", end);
process.on("SIGINT", end);
fs.writeSync(1, `${JSON.stringify({ ready: true, pid: process.pid })}\n`);
