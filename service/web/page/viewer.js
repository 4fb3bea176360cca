// A slice enlarged, with its region or its heat map.

import { contextOf } from "./answers.js";
import { titleOf } from "./files.js";
import * as key from "./key.js";
import * as regions from "./regions.js";
import * as words from "./words.js";

const place = (name) => document.getElementById(name);

/** Counts what the viewer shows, so that a heat map that comes late is not shown over another slice. */
let viewed = 0;

/** Ends the request for the heat map that is waited for. */
let asking = new AbortController();

/** Shows a slice; `refused` is called with the error where a key is asked for instead. */
export async function enlarge(item, entry, { heat = false, refused } = {}) {
  const turn = ++viewed;
  const title = titleOf(item, entry);
  place("viewer-name").textContent = title;
  place("viewer-picture").querySelector("svg")?.remove();
  place("viewer").showModal();
  if (!heat) {
    const region = regions.overlay(entry);
    if (region) {
      place("viewer-picture").append(region);
      const check = ({ target }) => {
        if (turn !== viewed || regions.fits(target, entry)) return;
        region.remove();
        place("viewer-note").textContent = regions.MISFIT;
      };
      place("viewer-image").addEventListener("load", check, { once: true });
    }
    show(item.url, title, region ? regions.caption(entry.region) : "");
    return;
  }
  place("viewer-image").hidden = true;
  place("viewer-note").textContent = "Asking for the heat map";
  asking = new AbortController();
  const { url, source, version, error } = await regions.explained(item, entry, asking.signal);
  if (turn !== viewed || !place("viewer").open) {
    if (url) URL.revokeObjectURL(url);
  } else if (key.isWanted(error)) {
    place("viewer").close();
    refused(error);
  } else if (error) {
    place("viewer-note").textContent = `${words.error(error)}.`;
  } else {
    place("viewer-image").addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    const whose = regions.heatVersion(version, contextOf(item, entry).model);
    const box = entry.region ? ` ${regions.caption(entry.region)}` : "";
    const stored = item.kind === "dicom" ? regions.AS_STORED : "";
    show(url, `Heat map of ${title}`, `${whose}${regions.heatCaption(source)}${box}${stored}`);
  }
}

function show(url, text, note) {
  const image = place("viewer-image");
  image.src = url;
  image.alt = text;
  image.hidden = false;
  place("viewer-note").textContent = note;
}

place("viewer").addEventListener("click", (event) => {
  if (event.target === place("viewer")) place("viewer").close();
});
place("viewer").addEventListener("close", () => asking.abort());
