// Which files go into one request, and which entries of its answer are whose.
//
// The service sums up the series of a request, so the DICOM files of a folder go together as far as
// the limits allow. A zip file goes alone.

/** Most files and bytes of a request; of DICOM far below what the service accepts by default. */
const PICTURES = { files: 8, bytes: 8e6 };
const SLICES = { files: 512, bytes: 100e6 };

export class Batches {
  constructor() {
    this.most = { dicom: SLICES.files, other: PICTURES.files };
  }

  /** Takes the files of the next request out of the queue. */
  take(queue) {
    const [first] = queue;
    const batch = [first];
    let bytes = first.file.size;
    const limit = first.kind === "dicom" ? SLICES.bytes : PICTURES.bytes;
    for (const item of queue.slice(1)) {
      if (batch.length === this.most[kindOf(first)]) break;
      if (!together(first, item)) continue;
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
    this.most[kindOf(first)] = Math.min(this.most[kindOf(first)], files);
  }
}

const kindOf = ({ kind }) => (kind === "dicom" ? "dicom" : "other");

function together(first, item) {
  if (first.kind === "zip" || item.kind === "zip") return false;
  if (kindOf(first) !== kindOf(item)) return false;
  return first.kind !== "dicom" || folderOf(first) === folderOf(item);
}

const folderOf = ({ path }) => path.slice(0, path.lastIndexOf("/") + 1);

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
    while (entries[at]?.input === file.name) at += 1;
    return entries.slice(start, at);
  });
  return at === entries.length && shares.every(({ length }) => length) ? shares : null;
}
