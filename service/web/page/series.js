// What the slices of a series come to together, as the service says with the answer to a request.

import { nameOf } from "./files.js";
import { element, list } from "./rows.js";
import * as words from "./words.js";

const template = document.getElementById("series-row");

/**
 * The summaries of all requests: {summary, context, name, lead, familiar, requests}. `lead` is the
 * name of the most suspicious slice, `familiar` whether the model can judge the slices that decide,
 * and `requests` how many requests had slices of this series.
 */
export function summaries(items) {
  const owners = new Map();
  const contexts = new Set();
  for (const item of items) {
    for (const entry of item.entries ?? []) owners.set(entry, item);
    if (item.context?.series && item.entries) contexts.add(item.context);
  }
  const found = [...contexts].flatMap((context) =>
    context.series.map((summary) => ({ summary, context })),
  );
  return found.map(({ summary, context }) => {
    const uid = summary.series_instance_uid;
    const entry = (index) => context.entries[index];
    const own = context.entries.filter(({ dicom }) => dicom?.series_instance_uid === uid);
    const files = new Set(own.map((one) => owners.get(one)).filter(Boolean));
    const [first] = files;
    return {
      summary,
      context,
      name: files.size === 1 ? first.path : folderOf(first?.path),
      lead: nameOfSlice(owners, entry(summary.most_suspicious), own),
      familiar: summary.window.every((index) => entry(index)?.in_distribution !== false),
      requests: found.filter((other) => other.summary.series_instance_uid === uid).length,
    };
  });
}

/** Those that say more than the row of a slice does. */
export const worthShowing = ({ summary, requests }) =>
  summary.slices + summary.failed > 1 || requests > 1;

/** The summary that an entry belongs to, if there is one. */
export const seriesOf = (entry, context) =>
  context?.series?.find(
    ({ series_instance_uid: uid }) => uid === entry.dicom?.series_instance_uid,
  );

/** Draws the summaries; `unknown` DICOM files have no answer, and may belong to any of them. */
export function draw(place, found, unknown) {
  place.replaceChildren(...found.map((one) => row(one, unknown)));
}

function row({ summary, name, lead, familiar, requests }, unknown) {
  const node = template.content.cloneNode(true).firstElementChild;
  const part = (key) => node.querySelector(`.${key}`);
  node.dataset.decision = summary.decision;
  part("name").textContent = name || "Series";
  part("decision").textContent = words.decision(summary.decision);
  // As with a slice that the model cannot judge.
  if (familiar) part("score-value").textContent = words.share(summary.tumor_probability);
  part("score").hidden = !familiar;

  const remarks = [];
  if (summary.decision === "refer") remarks.push(words.seriesReferral(familiar, summary.failed));
  const missing = summary.failed ? `, ${summary.failed} more without a result` : "";
  remarks.push(`${words.count(summary.slices, "slice")} judged${missing}`);
  remarks.push(`Not decided as “No tumour”: ${words.count(summary.suspicious.length, "slice")}`);
  if (familiar) remarks.push(`Most suspicious: ${lead}`);
  list(part("remarks"), remarks);
  const mark = element("li", "Series ");
  mark.append(element("code", summary.series_instance_uid));
  part("remarks").append(mark);

  const gaps = [];
  if (requests > 1) {
    gaps.push(
      `Slices of this series went in ${requests} requests; this result has those of one of them.`,
    );
  }
  if (unknown) {
    const files = words.count(unknown, "DICOM file has", "DICOM files have");
    gaps.push(`${files} no answer, and may belong to this series.`);
  }
  list(part("gaps"), gaps);
  return node;
}

const folderOf = (path) => path?.slice(0, Math.max(path.lastIndexOf("/"), 0));

function nameOfSlice(owners, entry, own) {
  const item = owners.get(entry);
  const name = item ? nameOf(item, entry) : entry?.input;
  const frames = own.filter(({ input }) => input === entry?.input).length > 1;
  return frames ? `${name}, frame ${entry.dicom.frame}` : name;
}
