// Results as files: made in the browser, from what the service answered.

import { contextOf } from "./answers.js";
import { nameOf } from "./files.js";
import { isCalibrated } from "./rows.js";
import { found, isCalibratedPart, seriesOf } from "./series.js";

const NOTE =
  "Research use only, not a medical device. Tumour probability is a model output, not a patient's risk.";

/**
 * Every answer as the service gave it, with the model and the request it belongs to. Numbers of slices
 * in a series are `request_index` of the results with its `request_id`. Its `decision` is the one that
 * is shown, of all requests that had slices of it; the service's own on this one stands beside it.
 */
export function toJson(items) {
  const results = rows(items).map(({ item, entry, context }) => ({
    ...entry,
    file: { name: nameOf(item, entry), size_bytes: item.file.size },
    model: context?.model,
    request_id: context?.request_id,
    request_index: context?.entries?.indexOf(entry),
    timing_ms: context?.timing_ms,
  }));
  const parts = found(items).flatMap((series) =>
    series.parts.map(({ summary, context }) => ({
      ...summary,
      decision: series.decision,
      service_decision: summary.decision,
      unanswered_files: series.missing.size,
      requests: series.parts.length,
      model: context.model,
      request_id: context.request_id,
    })),
  );
  const series = parts.length ? parts : undefined;
  return JSON.stringify({ note: NOTE, saved: new Date().toISOString(), results, series }, null, 2);
}

/**
 * One line for each answer; a column for each class, and for each later field that occurs. What a
 * series comes to stands in the line of each of its slices.
 */
export function toCsv(items) {
  const all = rows(items);
  const classes = new Set(all.flatMap(({ entry }) => Object.keys(entry.probabilities ?? {})));
  const occurs = (name) => all.some(({ entry }) => entry[name] !== undefined);
  const later = (name, value) => (occurs(name) ? [[name, value]] : []);
  // There may be rows of either kind.
  const probabilities = (prefix, value, calibrated) =>
    [true, false].map((wanted) => [
      `${prefix}tumor_probability${wanted ? "" : "_uncalibrated"}`,
      (row) => (calibrated(row) === wanted ? value(row) : undefined),
    ]).filter(([, of]) => all.some((row) => of(row) !== undefined));
  const json = (value) => (value === undefined ? undefined : JSON.stringify(value));
  const columns = [
    ["file", ({ item, entry }) => nameOf(item, entry)],
    ["decision", ({ entry }) => entry.decision],
    // Beside what it takes back: of a slice that the model cannot judge, the numbers mean nothing.
    ...later("in_distribution", ({ entry }) => entry.in_distribution),
    ...probabilities(
      "",
      ({ entry }) => entry.tumor_probability,
      ({ entry }) => isCalibrated(entry),
    ),
    ["label", ({ entry }) => entry.label],
    ["probability", ({ entry }) => entry.probability],
    ...[...classes].map((name) => [`p_${name}`, ({ entry }) => entry.probabilities?.[name]]),
    ...later("prediction_set", ({ entry }) => entry.prediction_set?.join(" ")),
    ...later("region", ({ entry }) => json(entry.region && { ...entry.region, mask: undefined })),
  ];
  if (occurs("dicom")) {
    columns.push(
      ["sop_instance_uid", ({ entry }) => entry.dicom?.sop_instance_uid],
      ["series_instance_uid", ({ entry }) => entry.dicom?.series_instance_uid],
      ["frame", ({ entry }) => entry.dicom?.frame],
    );
  }
  const saved = new Date().toISOString();
  const known = new Map(found(items).map((one) => [one.key, one]));
  const whole = ({ entry }) => entry.dicom && known.get(seriesOf(entry.dicom));
  const part = (row) => whole(row)?.parts.find(({ context }) => context === row.context);
  const series = (row) => part(row)?.summary;
  if (known.size) {
    columns.push(
      ["series_decision", (row) => series(row) && whole(row).decision],
      ["series_service_decision", (row) => series(row)?.decision],
      ...probabilities(
        "series_",
        (row) => series(row)?.tumor_probability,
        (row) => part(row) !== undefined && isCalibratedPart(part(row)),
      ),
      ["series_slices", (row) => series(row)?.slices],
      ["series_failed", (row) => series(row)?.failed],
      ["series_unfamiliar", (row) => series(row)?.unfamiliar],
      ["series_unanswered_files", (row) => series(row) && whole(row).missing.size],
      ["series_requests", (row) => series(row) && whole(row).parts.length],
    );
  }
  columns.push(
    ["error_status", ({ entry }) => entry.error?.status],
    ["error_code", ({ entry }) => entry.error?.code],
    ["error_detail", ({ entry }) => entry.error?.detail],
    ["model", ({ context }) => context?.model?.name],
    ["version", ({ context }) => context?.model?.version],
    ["runtime", ({ context }) => context?.model?.runtime],
    ["device", ({ context }) => context?.model?.device],
    ["request_id", ({ context }) => context?.request_id],
    ["saved", () => saved],
    ["note", () => NOTE],
  );
  const lines = [
    columns.map(([name]) => name),
    ...all.map((row) => columns.map(([, value]) => value(row))),
  ];
  // The mark makes Excel read UTF-8.
  return `\ufeff${lines.map((line) => line.map(cell).join(",")).join("\r\n")}\r\n`;
}

/**
 * Where a spreadsheet may see the beginning of a formula: that of the cell, and of what it takes for
 * one where it is set to another separator. Negative numbers are none.
 */
const FORMULA = /(^|[;,\t\r\n])(?=[=+\-@])(?!-[\d.]+(?:e[+-]?\d+)?(?:[;,\t\r\n\]}]|$))/g;

/** A cell; text that a spreadsheet would run as a formula is disarmed with an apostrophe. */
function cell(value) {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") return String(value);
  const text = value.replace(FORMULA, "$1'").replace(/^(?=[\t\r])/, "'");
  return /[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function rows(items) {
  return items.flatMap((item) => {
    if (!item.entries) {
      const { status, code, detail } = item.error;
      return [{ item, entry: { input: item.file.name, error: { status, code, detail } } }];
    }
    return item.entries.map((entry) => ({ item, entry, context: contextOf(item, entry) }));
  });
}

/** Hands text to the browser as a download. */
export function save(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
