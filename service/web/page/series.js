// What the slices of a series come to together, as the service says with the answers to requests.

import { contextOf, grouped } from "./answers.js";
import { byName, folderOf, nameOf, titleOf } from "./files.js";
import { element, isCalibrated, list, versionOf } from "./rows.js";
import * as words from "./words.js";

const template = document.getElementById("series-row");

/** The decision that counts where a series has several. */
const WORST_FIRST = ["tumor", "refer", "no_tumor"];

/** Refusals of what is no slice of a head: no tumour hides in it (NO_SLICES of service/series.py). */
const NO_SLICES = new Set([
  "not_an_image",
  "not_mr",
  "unsupported_sop_class",
  "not_patient",
  "not_head",
  "not_magnitude",
  "localizer",
]);

/**
 * Each series once, whatever number of requests its slices went in:
 * {key, uid, parts, lead, decision, incomplete, slices, strange, failed, unanswered, missing, ...}.
 *
 * A part is what one request says, {summary, context, slices}; `lead` is the one that decides, and
 * `decision` what is shown. `slices` are all that have an answer, `strange` how many of them the model
 * cannot judge. Without a result are `failed` slices of its requests and `unanswered` files that may
 * belong to it; `missing` are the files of both.
 */
export function found(items) {
  const owners = new Map();
  const contexts = new Set();
  for (const item of items) {
    for (const entry of item.entries ?? []) {
      owners.set(entry, item);
      const context = contextOf(item, entry);
      if (context?.series) contexts.add(context);
    }
  }
  const isShown = (entry) => owners.has(entry);
  const parts = [...contexts]
    .flatMap((context) =>
      context.series.map((summary) => ({ summary, context, slices: slicesOf(summary, context) })),
    )
    // A file that was tried again has all of them from the later request, or else of another series.
    .filter(({ slices }) => [...slices.values()].some(isShown));
  const lost = items.flatMap(lostOf);
  return [...grouped(parts, ({ summary }) => seriesOf(summary)).values()].map((own) =>
    joined(own, owners, lost),
  );
}

/**
 * Key of the series that a summary is of, or a slice by its place. Some anonymisers give the series of
 * all patients one UID, so it is not enough without the study's.
 */
export const seriesOf = ({ study_instance_uid: study, series_instance_uid: series }) =>
  [study ?? "", series].join(" ");

/** The answered slices of a series in one request, by what is the same when they are sent again. */
function slicesOf(summary, { entries }) {
  const series = seriesOf(summary);
  const own = entries.filter(({ dicom, error }) => dicom && !error && seriesOf(dicom) === series);
  return new Map(
    own.map((entry) => {
      const { sop_instance_uid: instance, frame } = entry.dicom;
      // The name too: some anonymisers give all slices one identifier.
      const name = entry.input?.split("/").pop();
      return [instance ? [instance, frame, name].join(" ") : entry, entry];
    }),
  );
}

/**
 * What has no result now and may be a slice, {item, entry}: DICOM files, what may be left of one, and
 * what could not be looked at. For zip files the service counts, who sees what is in them.
 */
function lostOf(item) {
  if (!["dicom", "remains", undefined].includes(item.kind)) return [];
  if (!item.entries) return [{ item }];
  return item.entries
    .filter(({ error }) => error && !NO_SLICES.has(error.code))
    .map((entry) => ({ item, entry }));
}

function joined(parts, owners, lost) {
  const rank = ({ summary }) => WORST_FIRST.indexOf(summary.decision);
  const [lead] = parts.toSorted(
    (a, b) => rank(a) - rank(b) || b.summary.tumor_probability - a.summary.tumor_probability,
  );
  // Of a slice that has several results, the one that is shown counts.
  const results = parts.flatMap((part) => [...part.slices]);
  const slices = new Map(results.toSorted(([, a], [, b]) => owners.has(a) - owners.has(b)));
  const files = new Set([...slices.values()].map((entry) => owners.get(entry)).filter(Boolean));
  const folders = new Set([...files].map(folderOf));
  const { study_instance_uid: study, series_instance_uid: uid } = lead.summary;
  const mine = lost.filter(({ item, entry }) => {
    const { study_instance_uid: itsStudy, series_instance_uid: its } = entry?.dicom ?? {};
    if (itsStudy && itsStudy !== study) return false;
    if (its) return its === uid;
    return item.kind !== "remains" || folders.has(folderOf(item));
  });
  const contexts = new Set(parts.map(({ context }) => context));
  const isOfRequest = ({ item, entry }) =>
    entry !== undefined && (contexts.has(contextOf(item, entry)) || files.has(item));
  const packed = [...files].some(({ kind }) => kind === "zip")
    ? Math.max(...parts.map((part) => part.summary.failed - settledOf(part, files)))
    : 0;
  const series = {
    key: seriesOf(lead.summary),
    uid,
    parts,
    lead,
    slices,
    strange: [...slices.values()].filter(isStrange).length,
    owners,
    failed: packed + mine.filter(isOfRequest).length,
    unanswered: new Set(mine.filter((one) => !isOfRequest(one)).map(({ item }) => item)),
    missing: new Set(mine.map(({ item }) => item)),
    isWhole: parts.some((part) => part.slices.size === slices.size),
  };
  return { ...series, ...decided(series) };
}

/** How many slices of a series that failed in this request have a result of another one. */
function settledOf({ summary, context }, files) {
  const series = seriesOf(summary);
  const answerTo = (entry) =>
    [...files].map(({ settled }) => settled?.get(entry)).find((answer) => answer !== undefined);
  return context.entries.filter((entry) => {
    if (!entry.error || !answerTo(entry)?.dicom) return false;
    const { series_instance_uid: its } = entry.dicom ?? {};
    return !its || seriesOf(entry.dicom) === series;
  }).length;
}

const isStrange = (entry) => entry.in_distribution === false;

/**
 * The decision that is shown of a series: the worst of its parts. It is never without a tumour where
 * something that may belong to it has no result, or where no request had all of it: `incomplete`.
 */
function decided({ lead, missing, isWhole }) {
  const { decision } = lead.summary;
  const incomplete = decision === "no_tumor" && (missing.size > 0 || !isWhole);
  return { decision: incomplete ? "refer" : decision, incomplete };
}

/** Whether what a request says of a series is by a version that is calibrated. */
export const isCalibratedPart = ({ slices }) => [...slices.values()].some(isCalibrated);

/** Those that say more than the row of a slice does. */
export const worthShowing = ({ slices, failed, parts, missing }) =>
  slices.size + failed > 1 || parts.length > 1 || [...missing].some(({ state }) => state === "failed");

export function draw(place, series) {
  const named = series.map(namesOf);
  const folders = named.map(({ folder }) => folder);
  const titles = named.map(({ folder, first, last }) => {
    if (first === last) return first;
    const isAlone = folders.indexOf(folder) === folders.lastIndexOf(folder);
    return folder && isAlone ? folder : `${first} to ${last.split("/").pop()}`;
  });
  place.replaceChildren(...series.map((one, index) => row(one, titles[index])));
}

/** Where a series' files lie: the innermost folder of all, and the first and the last one by name. */
function namesOf({ slices, owners }) {
  let folder, first, last;
  for (const entry of slices.values()) {
    if (!owners.has(entry)) continue;
    const name = nameOf(owners.get(entry), entry);
    folder ??= folderOf({ path: name });
    while (folder && !name.startsWith(`${folder}/`)) folder = folderOf({ path: folder });
    if (first === undefined || byName(name, first) < 0) first = name;
    if (last === undefined || byName(name, last) > 0) last = name;
  }
  return { folder, first, last };
}

function row(series, title) {
  const { uid, parts, lead, slices, strange, owners, failed, unanswered } = series;
  const node = template.content.cloneNode(true).firstElementChild;
  const part = (key) => node.querySelector(`.${key}`);
  const entryOf = (index) => lead.context.entries[index];
  const familiar = lead.summary.window.every((index) => !isStrange(entryOf(index) ?? {}));
  node.dataset.decision = series.decision;
  part("name").textContent = title;
  part("decision").textContent = words.seriesDecision(series);
  // As with a slice that the model cannot judge.
  if (familiar) part("score-value").textContent = words.share(lead.summary.tumor_probability);
  part("score").hidden = !familiar;
  part("score-note").hidden = isCalibratedPart(lead);

  const remarks = [];
  if (series.decision === "refer") {
    remarks.push(words.seriesReferral({ ...series, familiar, unusual: strange * 2 > slices.size }));
  }
  const judged = [...slices.values()].filter((entry) => !isStrange(entry));
  const counts = { tumor: 0, no_tumor: 0, refer: 0 };
  for (const { decision } of judged) counts[Object.hasOwn(counts, decision) ? decision : "refer"] += 1;
  const found = judged.length ? `: ${words.tally(counts)}` : "";
  remarks.push(`${words.count(judged.length, "slice")} judged${found}`);
  if (strange) remarks.push(`${strange} more that the model cannot judge`);
  if (failed) remarks.push(`${failed} more without a result`);
  if (familiar) {
    const entry = entryOf(lead.summary.most_suspicious);
    const item = owners.get(entry);
    remarks.push(`Most suspicious: ${item ? titleOf(item, entry) : entry?.input}`);
  }
  const same = parts.every((one) => one.slices.size === slices.size);
  if (parts.length > 1 && same) remarks.push(`Added ${parts.length} times`);
  list(part("remarks"), remarks);
  const mark = element("li", "Series UID ");
  mark.append(element("code", uid));
  part("remarks").append(mark);
  if (lead.context.model) part("remarks").append(versionOf(...parts.map(({ context }) => context)));

  const gaps = [];
  if (parts.length > 1 && !same) {
    const all = series.isWhole ? "" : ", none of which has all of its slices";
    gaps.push(`Answered in ${parts.length} parts${all}.`);
  }
  if (unanswered.size) {
    const number = words.count(unanswered.size, "file has", "files have");
    gaps.push(`${number} no result, and may belong to this series.`);
  }
  list(part("gaps"), gaps);
  return node;
}
