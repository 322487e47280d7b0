"use strict";
/*
 * What the page asks the server: which series there are, and one merged profile. Nothing here touches the document.
 *
 *   GET /api/v1/series?from&until     -> [{service_name, type, ...}], type as in process_cpu:cpu:nanoseconds:cpu:nanoseconds
 *   GET /pyroscope/render?query&from&until&format=json&maxNodes    -> a flamebearer with its timeline
 */

const MAX_NODES = 32768;
const PATIENCE_MS = 60_000;

/** The answer was not the one hoped for. message is fit to be read by the user; mayPass: asking again may help. */
class SourceError extends Error {
  constructor(message, mayPass = true) {
    super(message);
    this.mayPass = mayPass;
  }
}

const ProfileSource = {
  /** Series with samples in the range: [{service, type}], without doubles. */
  async series({ from, until }, signal) {
    const answer = await ask("/api/v1/series", { from, until }, signal);
    if (!Array.isArray(answer)) throw new SourceError("The server's list of series is not a list.");
    return answer.map((entry) => ({ service: String(entry.service_name ?? ""), type: String(entry.type ?? "") }));
  },

  /** {flamebearer, timeline} of one sample type; service "" means all of them together. */
  async profile({ service, type, from, until }, signal) {
    const selector = service ? `{service_name="${escapeLabelValue(service)}"}` : "{}";
    const parameters = { query: type + selector, from, until, format: "json", maxNodes: MAX_NODES };
    const answer = await ask("/pyroscope/render", parameters, signal);
    if (!answer?.flamebearer) throw new SourceError("The server's answer holds no flame graph.");
    return answer;
  },
};

/** Names of sample types for people, by the first two parts of the type. */
const TYPE_WORDS = {
  "process_cpu:cpu": "CPU time",
  "process_cpu:samples": "CPU samples",
  "wall:wall": "wall-clock time",
  "off_cpu:off_cpu": "waiting (off-CPU)",
  "lock:lock": "waiting for locks",
  "memory:inuse_space": "memory in use",
  "memory:alloc_space": "memory allocated",
  "memory:inuse_objects": "objects in use",
  "memory:alloc_objects": "objects allocated",
  "memory:fault_space": "memory first touched",
};

function typeWords(type) {
  const [name, sample] = type.split(":");
  return TYPE_WORDS[`${name}:${sample}`] ?? [name, sample].filter(Boolean).join(" ").replaceAll("_", " ");
}

/** The unit is the third part: nanoseconds, bytes, count, ... */
function typeUnit(type) {
  return type.split(":")[2] ?? "count";
}

function escapeLabelValue(value) {
  return value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
}

async function ask(path, parameters, signal) {
  let response;
  try {
    const patience = AbortSignal.timeout(PATIENCE_MS);
    response = await fetch(`${path}?${new URLSearchParams(parameters)}`, { signal: AbortSignal.any([signal, patience]) });
  } catch (error) {
    if (signal.aborted) throw error;
    if (error.name === "TimeoutError") throw new SourceError(`The server did not answer within ${PATIENCE_MS / 1000} seconds.`);
    throw new SourceError("The server cannot be reached. Is gprof-lite still running?");
  }
  const body = await response.json().catch(() => null);
  if (signal.aborted) throw new DOMException("superseded", "AbortError");
  if (!response.ok) {
    const words = body?.message ? `The server says: ${body.message}` : `The server answered with status ${response.status}.`;
    throw new SourceError(words, response.status >= 500);
  }
  if (body === null) throw new SourceError(`The server's answer to ${path} cannot be read.`);
  return body;
}
