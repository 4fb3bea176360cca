// Sends files to /predict in batches, one batch at a time.
//
// A batch that fails as a whole is split until the file that fails stands alone, so that it never
// hides the others. What can pass (429, 502, 503, 504, no connection) is tried again a few times;
// where it does not pass, the remaining files are not sent, and say why.

import { Batches, share } from "./batches.js";
import * as key from "./key.js";
import { isReachable, whileReachable } from "./waiting.js";

const RETRIES = 4;
const FIRST_WAIT_SECONDS = 1;
/** Where the service asks for a longer pause than this, the user decides when to try again. */
const LONGEST_WAIT_SECONDS = 15;

/** What a proxy says while the service behind it restarts, or breaks off what it is sent. */
const BAD_GATEWAY = 502;

/** Statuses, and codes with others, that may pass. */
const PASSING = new Set([408, 429, BAD_GATEWAY, 503, 504, "network", "body_timeout"]);
/** Among them, what a single file can cause: it is tried once more, and then fails alone. */
const ITS_OWN = new Set([408, 504, "runtime_lost", "body_timeout"]);
/** Where smaller batches would have been better from the start. */
const SHRINKING = new Set(["too_many_files", "body_timeout"]);
/** What a file has for the others of its request, and would not have by itself. */
const CROWDED = new Set(["too_many_frames", "unpacked_too_large"]);
const isAmong = (known, { status, code }) => known.has(status) || known.has(code);
/** A limit of a proxy, which names no code, is below the service's own, and every batch meets it. */
const isProxysLimit = ({ status, code }) => status === 413 && code === undefined;
const STOPPED = { code: "stopped", again: true };

export class Sender {
  /**
   * @param report {sending(items), answered(item, entries, context), failed(item, error, entries,
   *   context), waiting(items, error, seconds, attempt, attempts), idle()}. An error is {status, code,
   *   detail, again, wait}: `again` says that the same file may well be answered later, after `wait` s.
   *   A file that failed has entries where the service says why each of its slices did.
   */
  constructor(report) {
    this.report = report;
    this.queue = [];
    this.running = false;
    this.batches = new Batches();
    this.abort = new AbortController();
    this.halted = null;
  }

  async add(items) {
    this.queue.push(...items);
    if (this.running) return;
    this.running = true;
    while (this.queue.length) {
      this.abort = new AbortController();
      this.halted = null;
      await this.deliver(this.batches.take(this.queue), 0);
    }
    this.running = false;
    this.report.idle();
  }

  stop() {
    this.abort.abort();
    this.halt([], STOPPED);
  }

  async deliver(items, attempt) {
    if (this.halted) {
      this.fail(items);
      return;
    }
    this.report.sending(items);
    const answer = await post(items, this.abort.signal);
    if (this.halted) {
      this.fail(items);
    } else if (answer.entries) {
      await this.accept(items, answer, attempt);
    } else if (key.isRefusal(answer.error)) {
      this.halt(items, { ...answer.error, again: true });
    } else if (isAmong(PASSING, answer.error)) {
      await this.repeat(items, answer, attempt);
    } else {
      await this.split(items, answer.error, attempt);
    }
  }

  async accept(items, { entries, context, wait }, attempt) {
    const shares = share(items, entries);
    if (!shares) {
      // Alone, they are surely its own.
      await this.split(items, { code: "unexpected_answer" }, attempt);
      return;
    }
    const passing = [];
    const crowded = [];
    items.forEach((item, index) => {
      const own = shares[index];
      if (items.length > 1 && CROWDED.has(own[0].error?.code)) crowded.push(item);
      else if (!own.every((entry) => entry.error)) this.report.answered(item, own, context);
      else if (own.every((entry) => PASSING.has(entry.error.status))) {
        passing.push({ item, error: own[0].error });
      } else this.report.failed(item, own[0].error, own, context);
    });
    // The request had too much in it; these files alone may not.
    if (crowded.length === items.length) await this.split(crowded, entries[0].error, attempt);
    else if (crowded.length) await this.deliver(crowded, attempt);
    if (passing.length) {
      const answer = { error: passing[0].error, wait };
      await this.repeat(passing.map(({ item }) => item), answer, attempt);
    }
  }

  async repeat(items, { error, wait }, attempt) {
    // Of a proxy's 502 it is not known whose it is before it comes again.
    const broken = error.code === "network" || (error.status === BAD_GATEWAY && attempt > 0);
    const reachable = broken && (await isReachable(this.abort.signal));
    if (this.halted) {
      this.fail(items);
      return;
    }
    const own = reachable || isAmong(ITS_OWN, error);
    if (reachable && items.length > 1) {
      // It answers, but this batch breaks off: a file changed on the disk, or the body is refused
      // before it has arrived.
      await this.split(items, error, attempt);
    } else if (attempt < (own ? 1 : RETRIES) && !(wait > LONGEST_WAIT_SECONDS)) {
      const backoff = FIRST_WAIT_SECONDS * 2 ** attempt * (1 + Math.random() / 4);
      const seconds = Math.max(backoff, wait ?? 0);
      this.report.waiting(items, error, seconds, attempt + 1, own ? 1 : RETRIES);
      await pause(seconds, this.abort.signal);
      await this.deliver(items, attempt + 1);
    } else if (own) {
      const code = reachable ? "interrupted" : error.code;
      await this.split(items, { ...error, code, again: true }, attempt);
    } else {
      this.halt(items, { ...error, wait, again: true });
    }
  }

  async split(items, error, attempt) {
    if (items.length === 1) {
      this.report.failed(items[0], error);
      return;
    }
    const half = Math.ceil(items.length / 2);
    if (SHRINKING.has(error.code) || isProxysLimit(error)) this.batches.shrink(items, half);
    for (const part of [items.slice(0, half), items.slice(half)]) await this.deliver(part, attempt);
  }

  /** Nothing more is sent: neither these, nor what waits. */
  halt(items, error) {
    this.halted = error;
    this.fail([...items, ...this.queue.splice(0)]);
  }

  /** These are part of what was halted; what waits now was added since, and is sent. */
  fail(items) {
    for (const item of items) this.report.failed(item, this.halted);
  }
}

/** One request: {entries, context, wait} of an answer, else {error, wait}. */
async function post(items, signal) {
  const form = new FormData();
  for (const { file } of items) form.append("files", file, file.name);
  const started = performance.now();
  try {
    return await whileReachable(signal, async (limit) => {
      const response = await fetch("predict?mask=rle", {
        method: "POST",
        body: form,
        headers: key.headers({ Accept: "application/json" }),
        signal: limit,
      });
      const content = await response.json().catch(() => null);
      const elapsed = performance.now() - started;
      return { ...read(response, content, items.length, elapsed), wait: retryAfter(response) };
    });
  } catch {
    return { error: { code: "network" } };
  }
}

function read(response, content, files, elapsed) {
  const context = {
    request_id: content?.request_id,
    model: content?.model,
    tumor_classes: content?.tumor_classes,
    timing_ms: content?.timing_ms,
    round_trip_ms: elapsed,
    files,
    entries: content?.predictions ?? content?.errors,
    series: content?.series,
  };
  if (response.ok && Array.isArray(content?.predictions) && content.predictions.length) {
    return { entries: content.predictions, context };
  }
  if (response.ok) return { error: { status: response.status, code: "unexpected_answer" } };
  // Every file failed: the problem has their errors beside its own, of a zip file several.
  if (Array.isArray(content?.errors) && content.errors.length) {
    return { entries: content.errors, context };
  }
  const { code, detail } = content ?? {};
  return { error: { status: response.status, code, detail } };
}

function retryAfter(response) {
  const value = response.headers.get("Retry-After");
  if (value === null) return undefined;
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(seconds, 0) : undefined;
}

function pause(seconds, signal) {
  return new Promise((done) => {
    if (signal.aborted) {
      done();
      return;
    }
    const timer = setTimeout(finish, seconds * 1000);
    function finish() {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      done();
    }
    signal.addEventListener("abort", finish);
  });
}
