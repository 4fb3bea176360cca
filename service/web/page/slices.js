// What the files come to slice by slice, and which of them can be tried again.

import { contextOf } from "./answers.js";
import * as words from "./words.js";

/** What the rows show, {item, entry, row}: each slice of the files that have answers, and the others. */
export const of = (items) =>
  items.flatMap((item) => item.rows.map((row, index) => ({ item, entry: item.entries?.[index], row })));

export const isPending = ({ state }) => state !== "done" && state !== "failed";

/** Of a slice: "tumor", "no_tumor", "refer", "failed" or "pending". */
export function groupOf({ item, entry }) {
  if (isPending(item)) return "pending";
  if (item.state === "failed" || entry.error) return "failed";
  return entry.decision === "tumor" || entry.decision === "no_tumor" ? entry.decision : "refer";
}

export const mayPass = (error) =>
  error !== undefined && (error.again === true || error.status >= 500 || error.status === 429);

/** The errors of a file's slices that may pass. */
const passing = ({ entries }) => (entries ?? []).map(({ error }) => error).filter(mayPass);

export const canRetry = (item) => mayPass(item.error) || passing(item).length > 0;

/** What can be tried again, in words, and the error that says why; none where there is nothing. */
export function unanswered(items) {
  const again = items.filter(canRetry);
  const parts = again.filter(({ state }) => state === "done");
  const slices = parts.flatMap(passing).length;
  const lacking = [
    [again.length - parts.length, (number) => words.count(number, "file")],
    [parts.length, (number) => `${words.count(slices, "slice")} of ${words.count(number, "file")}`],
  ]
    .filter(([number]) => number)
    .map(([number, text]) => text(number))
    .join(" and ");
  // What ended all of it says more than what befell a slice. Of a file that was tried again in vain it
  // need not be what may pass.
  const ends = again.filter(({ error, state }) => error && (state === "done" || mayPass(error)));
  const [error] = [...ends.map((item) => item.error), ...again.flatMap(passing)];
  return { lacking, error };
}

/** The models that the results are of, in words. */
export const modelsUsed = (items) => [
  ...new Set(
    items
      .flatMap((item) => (item.entries ?? []).map((entry) => [entry, contextOf(item, entry)]))
      .filter(([{ error }]) => !error)
      .map(([, { model }]) => words.model(model))
      .filter(Boolean),
  ),
];

/** By how much they need a look: a slice that cannot be judged is first of those that are referred. */
export function bySuspicion(a, b) {
  const rank = (slice) => ["no_tumor", "refer", "tumor"].indexOf(groupOf(slice));
  const score = ({ entry }) =>
    entry?.in_distribution === false ? 1 : (entry?.tumor_probability ?? -1);
  return rank(b) - rank(a) || score(b) - score(a);
}
