// The region of an answer as lines over its slice.

import * as key from "./key.js";
import { whileReachable } from "./waiting.js";

const template = document.getElementById("region");

/** Outline and box over an image of the original's shape; null if the answer has no region to draw. */
export function overlay(entry) {
  const region = entry?.in_distribution === false ? null : entry?.region;
  const size = region?.mask?.size;
  if (!size || !Array.isArray(region.box)) return null;
  const [rows, columns] = size;
  const svg = template.content.cloneNode(true).firstElementChild;
  // Like the image below it, it keeps its shape and is centred.
  svg.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
  const [left, top, right, bottom] = region.box;
  const box = `M${left} ${top}H${right}V${bottom}H${left}Z`;
  svg.querySelector(".region-box").setAttribute("d", box);
  svg.querySelector(".region-outline").setAttribute("d", outline(region));
  return svg;
}

/**
 * Whether a browser shows a picture in the shape in which the service read it. What EXIF data say of the
 * width of pixels may change it, and browsers may know an orientation that the service does not.
 */
export function fits({ naturalWidth, naturalHeight }, entry) {
  const [rows, columns] = entry.region.mask.size;
  // A size that is scaled down is rounded.
  return Math.abs(naturalWidth * rows - naturalHeight * columns) <= (rows + columns) / 2;
}

/** The edges between pixels inside and outside of a mask in run lengths. */
function outline({ mask, box }) {
  const [left, top, right, bottom] = box;
  const height = bottom - top;
  const inside = new Uint8Array((right - left) * height);
  let place = 0;
  mask.counts.forEach((count, number) => {
    if (number % 2) {
      for (let pixel = place; pixel < place + count; pixel += 1) {
        // Runs go down the columns of the image.
        const column = Math.floor(pixel / mask.size[0]) - left;
        inside[column * height + (pixel % mask.size[0]) - top] = 1;
      }
    }
    place += count;
  });
  const has = (column, row) =>
    column >= 0 &&
    column < right - left &&
    row >= 0 &&
    row < height &&
    inside[column * height + row] === 1;
  const edges = [];
  for (let column = 0; column <= right - left; column += 1) {
    for (let row = 0; row <= height; row += 1) {
      const here = has(column, row);
      if (here !== has(column - 1, row)) edges.push(`M${left + column} ${top + row}v1`);
      if (here !== has(column, row - 1)) edges.push(`M${left + column} ${top + row}h1`);
    }
  }
  return edges.join("");
}

/** Whether a region is the coarse one of a version without a mask. */
export const isCoarse = (region) => region?.source === "cam";

/** What a region in a picture is. */
export const caption = (region) =>
  isCoarse(region)
    ? "The line and the box show what speaks most for a tumour: coarse, and no outline of it."
    : "The line and the box show where the model sees a tumour.";

/** What is said where a picture does not fit. */
export const MISFIT =
  "This browser shows the file in another shape than the service read it in, so the region is not " +
  "drawn here: see the heat map.";

/** Of the heat map of a DICOM object. */
export const AS_STORED = " The slice is shown as stored: nothing here says which side is left.";

/** What a heat map's colours say. Only a mask's are probabilities; others have their peak in every slice. */
export const heatCaption = (source) =>
  source === "mask"
    ? "From yellow to red, more speaks for a tumour."
    : "From yellow to red, more speaks for a tumour than elsewhere in this slice. The colours are " +
      "relative to this slice's own highest value: they do not say how likely a tumour is.";

/** Whose a heat map is, where another version serves by now than the one that gave the result. */
export function heatVersion(version, model) {
  if (!version || !model || version === String(model.version)) return "";
  return `Heat map by version ${version}; the result is version ${model.version}'s. `;
}

/** In words. */
export function describe(region) {
  const { box, area_pixels: pixels, area_mm2: area } = region;
  const [left, top, right, bottom] = box;
  const name = isCoarse(region) ? "Region (coarse)" : "Region";
  const size = `${name}: ${right - left} × ${bottom - top} pixels`;
  if (typeof area === "number") return `${size}, area ${area.toFixed(0)}\u00a0mm²`;
  return typeof pixels === "number" ? `${size}, area ${pixels} pixels` : size;
}

/**
 * The slice with its heat map, drawn by the service: {url, source, version} of a picture, or {error}.
 * It is not waited for any longer when `stopped` is aborted.
 */
export async function explained(item, entry, stopped) {
  const form = new FormData();
  form.append("files", item.file, item.file.name);
  const frame = entry.dicom?.frame;
  try {
    return await whileReachable(stopped, async (signal) => {
      const response = await fetch(`explain${frame ? `?frame=${frame}` : ""}`, {
        method: "POST",
        body: form,
        headers: key.headers({ Accept: "image/png" }),
        signal,
      });
      if (response.ok) {
        const source = response.headers.get("X-Heatmap-Source");
        const version = response.headers.get("X-Model-Version");
        return { url: URL.createObjectURL(await response.blob()), source, version };
      }
      const { code } = await response.json().catch(() => ({}));
      return { error: { status: response.status, code } };
    });
  } catch {
    return { error: { code: "network" } };
  }
}
