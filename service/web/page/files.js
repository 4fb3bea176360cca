// From what was dropped, pasted or chosen to files with their paths: [{file, path}].

/** Files that systems and DICOM media have of their own, as in _IGNORED of service/archives.py. */
const NOISE = /^(\..*|Thumbs\.db|desktop\.ini|Icon\r|DICOMDIR|VERSION|LOCKFILE)$/i;

/** End of a name that no slice has, as in _OTHER_KIND of service/series.py. */
const OTHER_KIND = /\.(?!(dcm|dicom|dic|ima|mr)$)[a-z]+$/i;

const DICOM_PREAMBLE_BYTES = 128;

/** Of a drop: its files, and those in its folders, depth first and by name. */
export async function dropped(transfer) {
  // Entries must be taken before anything is awaited: the transfer is emptied then.
  const entries = [...transfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  for (const entry of entries) await collect(entry, found, false);
  return found;
}

/** Of a choice or a paste. */
export function chosen(files) {
  return [...files].map((file) => ({ file, path: file.webkitRelativePath || file.name }));
}

/** Of a folder that was chosen, by name. */
export function chosenFolder(files) {
  return chosen(files)
    .filter(({ file }) => !NOISE.test(file.name))
    .sort((a, b) => byName(a.path, b.path));
}

/**
 * A file's name as the service gets it and gives it back: browsers write these signs so in a form
 * (HTML, section 4.10.21.8).
 */
export const nameSent = ({ name }) =>
  name.replaceAll("\n", "%0A").replaceAll("\r", "%0D").replaceAll('"', "%22");

/** Name of an answer's slice: the file's, or within a zip file the service's for what is in it. */
export function nameOf({ file, path }, entry) {
  const sent = nameSent(file);
  const inside = entry?.input?.startsWith(`${sent}/`);
  return inside ? path + entry.input.slice(sent.length) : path;
}

/** The same, with the number of its frame where an object has several: no two slices share it. */
export function titleOf(item, entry) {
  const name = nameOf(item, entry);
  const frame = entry?.dicom?.frame;
  return frame && slicesIn(item.entries).get(entry.input) > 1 ? `${name}, frame ${frame}` : name;
}

const counted = new WeakMap();

/** How many slices each input of an answer has. Counted once, as there may be a thousand. */
function slicesIn(entries) {
  if (!counted.has(entries)) {
    const numbers = new Map();
    for (const { input } of entries) numbers.set(input, (numbers.get(input) ?? 0) + 1);
    counted.set(entries, numbers);
  }
  return counted.get(entries);
}

/** The folder that a file was chosen or dropped with; empty where there was none. */
export const folderOf = ({ path }) => path.slice(0, Math.max(path.lastIndexOf("/"), 0));

/** Order of names that hold numbers: 2 before 10. */
export const byName = new Intl.Collator(undefined, { numeric: true }).compare;

async function collect(entry, found, nested) {
  if (entry instanceof File) {
    found.push(...chosen([entry]));
  } else if (entry?.isFile) {
    if (nested && NOISE.test(entry.name)) return;
    // One that cannot be opened becomes a row that says so.
    const file = await new Promise((open) => entry.file(open, () => open(unreadable(entry.name))));
    found.push({ file, path: entry.fullPath.replace(/^\//, "") });
  } else if (entry?.isDirectory) {
    for (const child of await list(entry.createReader())) await collect(child, found, true);
  }
}

function unreadable(name) {
  const file = new File([], name);
  file.slice = () => ({ arrayBuffer: () => Promise.reject(new Error("unreadable")) });
  return file;
}

async function list(reader) {
  const entries = [];
  for (;;) {
    // A reader answers in portions; an empty one is the last.
    const portion = await new Promise((take) => reader.readEntries(take, () => take([])));
    if (!portion.length) break;
    entries.push(...portion);
  }
  return entries.sort((a, b) => byName(a.name, b.name));
}

/** Where a PNG file says how many bits a sample has (PNG, third edition, 11.2.1). */
const PNG_DEPTH = 24;

/**
 * Kind of a file by its first bytes: "jpeg", "png", "deep" (PNG of 16 bits), "dicom", "zip", "remains" of
 * a DICOM file (as in may_be_dicom of service/series.py) or "unknown"; rejects if unreadable.
 */
export async function sniff(file) {
  const head = new Uint8Array(await file.slice(0, DICOM_PREAMBLE_BYTES + 4).arrayBuffer());
  const starts = (at, ...values) => values.every((value, index) => head[at + index] === value);
  if (starts(0, 0xff, 0xd8, 0xff)) return "jpeg";
  if (starts(0, 0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)) {
    return head[PNG_DEPTH] === 16 ? "deep" : "png";
  }
  if (starts(0, 0x50, 0x4b, 0x03, 0x04)) return "zip";
  if (starts(DICOM_PREAMBLE_BYTES, 0x44, 0x49, 0x43, 0x4d)) return "dicom";
  if (!head.length && (NOISE.test(file.name) || OTHER_KIND.test(file.name))) return "unknown";
  // Nothing or zeros, as an interrupted copy leaves them, or data elements without preamble.
  const isBare = (starts(0, 0x02, 0x00) || starts(0, 0x08, 0x00)) && head[3] === 0;
  return isBare || head.every((byte) => byte === 0) ? "remains" : "unknown";
}
