// The page: files in, results out. Nothing is stored, and nothing is loaded from elsewhere.

import { merged } from "./page/answers.js";
import * as exports from "./page/exports.js";
import { byName, nameOf, sniff } from "./page/files.js";
import * as health from "./page/health.js";
import * as intake from "./page/intake.js";
import * as key from "./page/key.js";
import { draw, isCalibrated } from "./page/rows.js";
import { Sender } from "./page/sending.js";
import * as series from "./page/series.js";
import * as slices from "./page/slices.js";
import * as viewer from "./page/viewer.js";
import * as words from "./page/words.js";

const ANNOUNCE_EVERY_MS = 4000;

const place = (name) => document.getElementById(name);
const list = place("list");

/**
 * Files in the order they were added: {file, path, state, kind, url, error, kept}, and an answer (of
 * answers.js). One that is tried again has the answer before in `kept`.
 */
let items = [];
let busyMs = 0;
let startedAt = null;
let announcedAt = 0;
/** Whether the results that are shown were saved as they are. */
let isSaved = false;

const sender = new Sender({
  sending(sent) {
    for (const item of sent) change(item, { state: "sending" });
    place("notice").hidden = true;
  },
  answered(item, entries, context) {
    change(item, { state: "done", ...merged(item.kept, { entries, context }) });
  },
  failed(item, error, entries, context) {
    const { kept } = item;
    // What was answered before stays, where it was only tried again in vain.
    if (!kept) change(item, { state: "failed", error, entries, context });
    // It had several slices: one error is of the whole file.
    else if (!entries || entries.length === 1) change(item, { state: "done", error, ...kept });
    else change(item, { state: "done", ...merged(kept, { entries, context }) });
  },
  waiting(waiting, error, seconds, attempt, attempts) {
    for (const item of waiting) change(item, { state: "waiting" });
    health.watch();
    const code = [error.status, error.code].filter(Boolean).join(" ");
    notify(
      `${words.error(error)} (${code}). Trying again in ${Math.ceil(seconds)} s, ` +
        `attempt ${attempt} of ${attempts}.`,
    );
    announce(place("notice").textContent);
  },
  idle() {
    // Cleared meanwhile.
    if (!items.length) return;
    if (startedAt !== null) busyMs += performance.now() - startedAt;
    startedAt = null;
    place("notice").hidden = true;
    const { lacking, error } = slices.unanswered(items);
    if (error) notify(`${lacking} got no result. ${explain(error)}`);
    askForKey(error);
    refresh();
    // Why something has no result is heard with how many have none.
    const said = ["summary", "versions", "notice"].map(place).filter(({ hidden }) => !hidden);
    announce(said.map(({ textContent }) => textContent).join(" "));
    health.watch();
  },
});

function explain(error) {
  const isWrongKey = error.status === 401 && key.isGiven();
  const text = isWrongKey ? "The key is not valid." : `${words.error(error)}.`;
  if (error.code === "stopped" || key.isRefusal(error) || !slices.mayPass(error)) return text;
  return `${text} Try again ${error.wait ? `in ${Math.ceil(error.wait)} s` : "later"}.`;
}

async function add(found) {
  const added = found.map(({ file, path }) => ({ file, path, state: "waiting" }));
  if (!added.length) return;
  items.push(...added);
  isSaved = false;
  for (const item of added) draw(item, enlarge);
  list.append(...added.flatMap((item) => item.rows));
  place("results").hidden = false;
  const readable = [];
  startedAt ??= performance.now();
  await Promise.all(added.map(inspect));
  for (const item of added) {
    // Cleared meanwhile, or not readable.
    if (items.includes(item) && item.state === "waiting") readable.push(item);
  }
  place("results-title").scrollIntoView({ block: "nearest" });
  refresh();
  sender.add(readable);
}

/** Adds what a drop or a choice gave, and says so where that is nothing. */
function addOrSay(found) {
  // Else they would be listed behind it, unseen.
  place("viewer").close();
  sayNoFiles(!found.length);
  add(found);
}

function sayNoFiles(isSo) {
  place("no-files").hidden = !isSo;
  place("no-files").textContent = isSo ? "There is no file in it that could be sent." : "";
}

async function inspect(item) {
  try {
    item.kind = await sniff(item.file);
  } catch {
    change(item, { state: "failed", error: { code: "unreadable_file" } });
    return;
  }
  // Of 16 bits a browser shows values of 12 as good as black; the service spreads them.
  if (item.kind === "jpeg" || item.kind === "png") item.url = URL.createObjectURL(item.file);
  draw(item, enlarge);
}

function change(item, fields) {
  delete item.entries;
  delete item.error;
  isSaved = false;
  Object.assign(item, fields);
  draw(item, enlarge);
  schedule();
}

let scheduled = false;
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    refresh();
  });
}

function refresh() {
  const focused = document.activeElement;
  const shown = slices.of(items);
  const counts = { all: shown.length, tumor: 0, no_tumor: 0, refer: 0, failed: 0, pending: 0 };
  for (const slice of shown) counts[slices.groupOf(slice)] += 1;
  const answered = items.filter((item) => !slices.isPending(item)).length;
  const running = counts.pending > 0;

  showVersions();
  place("summary").textContent = [...summary(counts, answered), ...showSeries()].join("\n");
  place("sets-hint").hidden = !items.some(({ entries }) => entries?.some(isCalibrated));
  place("progress").hidden = !running;
  place("progress").max = items.length || 1;
  place("progress").value = answered;
  for (const node of document.querySelectorAll("[data-count]")) {
    node.textContent = counts[node.dataset.count];
  }
  document.querySelector("[data-optional]").hidden = !counts.refer;
  place("stop").hidden = !running;
  place("retry").hidden = running || !items.some(slices.canRetry);
  place("save-csv").disabled = place("save-json").disabled = running || !answered;
  place("list").setAttribute("aria-busy", String(running));
  // A browser that opens the page again may restore a choice that is not offered now.
  if (document.querySelector("[data-optional][hidden] input:checked")) showAll();
  arrange();
  keepFocus(focused);
  if (running && performance.now() - announcedAt > ANNOUNCE_EVERY_MS) {
    announce(`${answered} of ${words.count(items.length, "file")} answered.`);
  }
}

/** Where what had the focus is hidden now, it goes to the button in its place. */
function keepFocus(focused) {
  if (focused === document.body || focused?.checkVisibility() !== false) return;
  const next = [place("stop"), place("retry")].find(({ hidden }) => !hidden);
  (next ?? place("results-title")).focus({ preventScroll: true });
}

/** How many files there are, and what their slices come to, a line of words for each. */
function summary(counts, answered) {
  const files = words.count(items.length, "file");
  const took = words.milliseconds(busyMs + (startedAt === null ? 0 : performance.now() - startedAt));
  const lines = [counts.pending ? `${answered} of ${files} answered.` : `${files} in ${took}.`];
  const judged = counts.tumor + counts.no_tumor + counts.refer;
  if (judged) lines.push(`${words.count(judged, "slice")}: ${words.tally(counts)}.`);
  if (counts.failed) lines.push(`${counts.failed} without a result.`);
  return lines;
}

/** Shows what the series come to; the same as a line of words, if there are any. */
function showSeries() {
  const found = series.found(items).filter(series.worthShowing);
  series.draw(place("series-list"), found);
  place("series").hidden = !found.length;
  if (!found.length) return [];
  const counts = {};
  for (const { decision, incomplete } of found) {
    const name = incomplete ? "incomplete" : decision;
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return [`${found.length} series: ${words.tally(counts)}.`];
}

/** Says so where results are of several versions, or not of the one that the page names as serving. */
function showVersions() {
  const used = slices.modelsUsed(items);
  const { serving } = health;
  const isPast = used.length > 0 && serving !== undefined && !used.includes(serving);
  const mixed = used.length > 1 || isPast;
  const past = isPast ? ` The service now runs ${serving}.` : "";
  place("versions").textContent = `These results are by ${used.join(" and ")}.${past}`;
  place("versions").hidden = !mixed;
  place("results").classList.toggle("mixed", mixed);
}

/** What paper has to say of the results, as the controls are not on it. */
function showPrinted(visible, all) {
  const used = slices.modelsUsed(items);
  const texts = used.length ? [`Results by ${used.join(" and ")}.`] : [];
  const chosen = document.querySelector("input[name=filter]:checked + span").firstChild.data.trim();
  const total = words.count(all, "slice");
  const now = new Date().toLocaleString("en-GB", { dateStyle: "long", timeStyle: "long" });
  texts.push(`Printed ${now}.`);
  if (visible < all) texts.push(`Only “${chosen}” is shown: ${visible} of ${total}.`);
  place("printed").textContent = texts.join(" ");
}

/** Order and choice of rows. */
function arrange() {
  const show = document.querySelector("input[name=filter]:checked").value;
  const order = place("sort").value;
  const name = ({ item, entry }) => nameOf(item, entry);
  const sorted = slices.of(items);
  if (order === "score") sorted.sort(slices.bySuspicion);
  if (order === "name") sorted.sort((a, b) => byName(name(a), name(b)));
  let previous = null;
  let visible = 0;
  for (const slice of sorted) {
    const { row } = slice;
    row.hidden = show !== "all" && slices.groupOf(slice) !== show;
    if (!row.hidden) visible += 1;
    // Moved only if it has to be: a moved row loses the focus.
    const next = previous ? previous.nextElementSibling : list.firstElementChild;
    if (next !== row) list.insertBefore(row, next);
    previous = row;
  }
  place("nothing").hidden = visible > 0 || !items.length;
  showPrinted(visible, sorted.length);
}

function showAll() {
  document.querySelector("input[name=filter][value=all]").checked = true;
}

function askForKey(error) {
  place("key-form").hidden = !key.isWanted(error);
  if (!place("key-form").hidden) place("key").focus();
}

function sendAgain() {
  const again = items.filter(slices.canRetry);
  for (const item of again) {
    const { state, entries, context, older, settled } = item;
    const kept = state === "done" ? { entries, context, older, settled } : undefined;
    change(item, { state: "waiting", kept });
  }
  startedAt ??= performance.now();
  sender.add(again);
  refresh();
}

function notify(text) {
  place("notice").textContent = text;
  place("notice").hidden = false;
}

function announce(text) {
  announcedAt = performance.now();
  place("announcer").textContent = text;
}

/** Whether there are results, or some are to come, that are in this page alone. */
function isLoss() {
  return !isSaved && items.some((item) => slices.isPending(item) || item.state === "done");
}

/** Clears at once where nothing is lost by it, and else asks. */
function askToClear() {
  if (isLoss()) place("question").showModal();
  else clear();
}

function clear() {
  place("question").close();
  sender.stop();
  for (const { url } of items) if (url) URL.revokeObjectURL(url);
  items = [];
  busyMs = 0;
  startedAt = null;
  list.replaceChildren();
  showAll();
  showSeries();
  sayNoFiles(false);
  place("results").hidden = true;
  place("notice").hidden = true;
  place("key-form").hidden = true;
  announce("Cleared.");
  place("choose-files").focus();
}

function enlarge(item, entry, options) {
  viewer.enlarge(item, entry, {
    ...options,
    refused(error) {
      notify(explain(error));
      askForKey(error);
    },
  });
}

function download(kind) {
  const answered = items.filter(({ state }) => state === "done" || state === "failed");
  // In UTC, as its Z says.
  const stamp = `${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}Z`;
  const [text, type] =
    kind === "csv"
      ? [exports.toCsv(answered), "text/csv;charset=utf-8"]
      : [exports.toJson(answered), "application/json"];
  exports.save(text, `brain-mri-results-${stamp}.${kind}`, type);
  isSaved = true;
}

intake.listen(addOrSay);
addEventListener("beforeprint", arrange);
place("filter").addEventListener("change", arrange);
place("sort").addEventListener("change", arrange);
place("stop").addEventListener("click", () => sender.stop());
place("retry").addEventListener("click", sendAgain);
place("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!key.isPlain(place("key").value)) {
    notify("This is no key: it has a space, a typographic quote or an invisible sign in it. Copy it again.");
    announce(place("notice").textContent);
    return;
  }
  key.use(place("key").value);
  place("key").value = "";
  place("key-form").hidden = true;
  sendAgain();
});
place("save-csv").addEventListener("click", () => download("csv"));
place("save-json").addEventListener("click", () => download("json"));
place("clear").addEventListener("click", askToClear);
place("clear-all").addEventListener("click", clear);
addEventListener("beforeunload", (event) => {
  if (isLoss()) event.preventDefault();
});

health.onChange(() => {
  if (!items.length) return;
  showVersions();
  if (!place("versions").hidden) announce(place("versions").textContent);
});
health.watch();
