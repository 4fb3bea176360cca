// Which files go into one request, and which entries of its answer are whose.
//
// The service sums up the series of a request, so the DICOM files of a folder go together as far as
// the limits allow, and with them what may be a damaged one. A zip file goes alone.

import { folderOf, nameSent } from "./files.js";

/** Most files and bytes of a request; of DICOM far below what the service accepts by default. */
const PICTURES = { files: 8, bytes: 8e6 };
const SLICES = { files: 512, bytes: 100e6 };

export class Batches {
  constructor() {
    this.most = { dicom: SLICES.files, other: PICTURES.files };
    /** Folders with DICOM files: what remains of a file there may be of a slice of their series. */
    this.folders = new Set();
  }

  /** Takes the files of the next request out of the queue. */
  take(queue) {
    for (const item of queue) if (item.kind === "dicom") this.folders.add(folderOf(item));
    const fit = queue.filter((item) => item === queue[0] || this.together(queue[0], item));
    // What is certainly of a series comes first, so that nothing else takes its place.
    const [first, ...others] = fit.toSorted((a, b) => (b.kind === "dicom") - (a.kind === "dicom"));
    const batch = [first];
    let bytes = first.file.size;
    const kind = this.kindOf(first);
    const limit = kind === "dicom" ? SLICES.bytes : PICTURES.bytes;
    for (const item of others) {
      if (batch.length === this.most[kind]) break;
      bytes += item.file.size;
      if (bytes > limit) break;
      batch.push(item);
    }
    const taken = new Set(batch);
    queue.splice(0, queue.length, ...queue.filter((item) => !taken.has(item)));
    return batch;
  }

  /** Such a batch was too large: the next ones have at most so many files. */
  shrink([first], files) {
    const kind = this.kindOf(first);
    this.most[kind] = Math.min(this.most[kind], files);
  }

  kindOf(item) {
    const isSlice = item.kind === "remains" && this.folders.has(folderOf(item));
    return item.kind === "dicom" || isSlice ? "dicom" : "other";
  }

  together(first, item) {
    if (first.kind === "zip" || item.kind === "zip") return false;
    if (this.kindOf(first) !== this.kindOf(item)) return false;
    return this.kindOf(first) !== "dicom" || folderOf(first) === folderOf(item);
  }
}

/**
 * The entries of each file, one or several; they come in the order of the files. Null if it is not
 * certain whose they are.
 */
export function share(items, entries) {
  if (items.length === 1) return [entries];
  if (items.length === entries.length) return entries.map((entry) => [entry]);
  let at = 0;
  const shares = items.map(({ file }) => {
    // Of two files of one name, one after the other, the second finds none left.
    const start = at;
    const name = nameSent(file);
    while (entries[at]?.input === name) at += 1;
    return entries.slice(start, at);
  });
  return at === entries.length && shares.every(({ length }) => length) ? shares : null;
}
