// What the service says, in plain words. What is not known here is shown as the service says it.

const LABELS = {
  glioma: "Glioma",
  meningioma: "Meningioma",
  notumor: "No tumour",
  pituitary: "Pituitary tumour",
  tumor: "Tumour",
};

const DECISIONS = {
  tumor: "Tumour",
  no_tumor: "No tumour",
  refer: "Refer to a reader",
};

const TALLIES = {
  tumor: "tumour",
  no_tumor: "no tumour",
  refer: "to refer",
  incomplete: "to refer (incomplete)",
};

/** Decisions with how many there are of each, {tumor: 2, refer: 1}, as "2 tumour, 1 to refer". */
export const tally = (counts) =>
  Object.entries(TALLIES)
    .filter(([name]) => counts[name])
    .map(([name, text]) => `${counts[name]} ${text}`)
    .join(", ");

/** Why an answer is left to a person, where it is. */
export function referral({ decision: made, in_distribution: familiar }) {
  if (made !== "refer") return undefined;
  return familiar === false
    ? "The model cannot judge this image: a person has to."
    : "The model is not sure enough to decide: a person has to.";
}

/**
 * Why the decision says something else than the most likely class, where it does.
 *
 * @param tumors the classes that mean a tumour; without them nothing is said.
 */
export function contradiction({ decision: made, label: likeliest }, tumors) {
  if (!Array.isArray(tumors) || likeliest === undefined) return undefined;
  const isTumor = tumors.includes(likeliest);
  const isOnly = tumors.length === 1;
  if (made === "tumor" && !isTumor) {
    return isOnly
      ? "The tumour class reaches the threshold of the decision, though another is more likely."
      : "The tumour classes together reach the threshold, though none is the most likely.";
  }
  if (made === "no_tumor" && isTumor) {
    return isOnly
      ? "The tumour class is the most likely, but stays below the threshold of the decision."
      : "The tumour classes together stay below the threshold of the decision.";
  }
  return undefined;
}

/** The decision on a series; one that only stands for what is missing says so. */
export const seriesDecision = ({ decision: name, incomplete }) =>
  incomplete ? `${decision(name)} (incomplete)` : decision(name);

/**
 * Why a series is left to a person.
 *
 * @param series {incomplete, familiar, unusual, failed, isWhole}: whether its decision only stands for
 *   what is missing, whether the model can judge the slices that decide, whether it cannot judge most
 *   of them all, how many slices failed, and whether one request had all of its slices.
 */
export function seriesReferral({ incomplete, familiar, unusual, failed, isWhole }) {
  if (incomplete) {
    return (
      "No tumour in what was judged, but not all of the series was judged together: " +
      "a person has to decide."
    );
  }
  if (!familiar) return "The model cannot judge a slice that decides on the series: a person has to.";
  if (unusual) return "The model cannot judge most slices of the series: a person has to.";
  if (failed) return "Slices without a result may show a tumour: a person has to decide.";
  if (!isWhole) return "Not all of the series was judged together: a person has to decide.";
  return "The model is not sure enough to decide: a person has to.";
}

/** Which tumour probabilities lead to which decision, [[range, decision]], the highest first. */
export function operation({ tumor_threshold: threshold, refer_low: low, refer_high: high }) {
  const made = (value) => {
    if (value >= low && value < high) return "refer";
    return value >= threshold ? "tumor" : "no_tumor";
  };
  const edges = [...new Set([0, threshold, low ?? 0, high ?? 0])].sort((a, b) => a - b);
  const starts = edges.filter((edge, index) => !index || made(edge) !== made(edges[index - 1]));
  const range = (from, to) => {
    if (to === undefined) return from ? `${edge(from)} or more` : "any";
    return from ? `${edge(from)} to ${edge(to)}` : `below ${edge(to)}`;
  };
  return starts.map((from, index) => [range(from, starts[index + 1]), decision(made(from))]).reverse();
}

/** How many of the tumours the threshold found where it was chosen; empty where this is not known. */
export function sensitivity({ tumor_threshold: threshold, sensitivity: found }) {
  if (typeof found !== "number") return "";
  const percent = `${(100 * found).toFixed(1)}\u00a0%`;
  return `${edge(threshold)} was chosen on validation data, where ${percent} of the slices with a tumour reach it.`;
}

const RUNTIMES = { litert: "LiteRT", tensorflow: "TensorFlow" };

const STATES = {
  ready: "Ready",
  starting: "Starting",
  draining: "Shutting down",
  unavailable: "Not available",
  unreachable: "Not reachable",
};

const ERRORS = {
  unsupported_media_type: "This kind of file is not accepted",
  undecodable_image: "The image is damaged",
  truncated_image: "The file is incomplete",
  too_many_pixels: "The image has too many pixels",
  no_pixel_data: "The DICOM object holds no image",
  not_mr: "The DICOM object is not an MR image",
  unsupported_transfer_syntax: "This DICOM compression is not supported",
  unsupported_pixels: "This DICOM pixel format is not supported",
  too_many_frames: "The DICOM object holds too many frames",
  not_an_image: "The DICOM object is not an image",
  unsupported_sop_class: "This kind of DICOM object is not supported",
  not_head: "The DICOM object is not of a head",
  not_patient: "The DICOM object shows an animal or a phantom",
  not_magnitude:
    "The DICOM object is a phase, real, imaginary or velocity image, a map or a difference",
  localizer: "The DICOM object is a localizer or a projection",
  mosaic: "The DICOM object is a mosaic of slices",
  decoder_crashed: "The image could not be unpacked",
  decoder_timed_out: "The image took too long to unpack",
  decoder_out_of_memory: "The image needs too much memory to unpack",
  decoder_unavailable: "The service cannot unpack the image now",
  damaged_zip: "The zip file is damaged",
  empty_zip: "The zip file holds no files",
  encrypted_zip: "The zip file needs a password",
  nested_zip: "A zip file inside a zip file is not accepted",
  unsupported_zip: "This way of packing a zip file is not supported",
  zip_too_large: "The zip file unpacks to too much",
  unpacked_too_large: "The DICOM files of one request unpack to too much",
  too_many_files: "There are too many files",
  body_too_large: "The file is too large",
  body_timeout: "The upload took too long",
  queue_full: "The service is busy",
  draining: "The service is shutting down",
  model_loading: "The model is still loading",
  runtime_unusable: "The model cannot run on this server",
  runtime_lost: "The model stopped and is being restarted",
  deadline_exceeded: "The service took too long",
  forbidden: "The key is not for this",
  other_site:
    "The service takes this page for one of another site: ask its administrator, whose proxy has to " +
    "pass on the name in the address bar",
  unknown_host:
    "The service does not know the name in the address bar: ask its administrator to list it in " +
    "BRAIN_ALLOWED_HOSTS",
  not_explainable: "This model has no heat map",
  inference_failed: "The model failed on this image",
  // The page's own.
  network: "The service could not be reached",
  interrupted: "The connection broke during the upload",
  unreadable_file: "The file could not be read from the disk",
  unexpected_answer: "The service gave an answer that this page does not understand",
  stopped: "Stopped before it was answered",
};

const STATUSES = {
  401: "The service asks for a key",
  403: "The service may not be asked from here",
  413: "Too large",
  415: "This kind of file is not accepted",
  422: "The file cannot be read as an MR slice",
  429: "Too many requests for now",
  502: "The service does not answer for now",
  503: "The service is not available",
  504: "The service took too long",
};

const own = (table, key) => (Object.hasOwn(table, key) ? table[key] : undefined);

export const model = (one) => one && `${one.name} ${one.version}`;
export const label = (name) => own(LABELS, name) ?? String(name);
export const decision = (name) => own(DECISIONS, name) ?? String(name);
export const runtime = (name) => own(RUNTIMES, name) ?? String(name);
export const state = (name) => own(STATES, name) ?? String(name);

/** A headline for an error: by its code, else by its status. */
export function error({ status, code }) {
  return own(ERRORS, code) ?? own(STATUSES, status) ?? "The service could not answer";
}

/** The same for a file: of an empty one, the service says what it says of everything unknown to it. */
export const fileError = (file, one) =>
  file.size === 0 && one.code === "unsupported_media_type" ? "The file is empty" : error(one);

/** A share from 0 to 1; three decimals never claim certainty. */
export function share(value) {
  if (value >= 0.9995) return ">0.999";
  if (value < 0.0005) return "<0.001";
  return value.toFixed(3);
}

/** An edge between decisions; a fourth decimal where it lies among values that are shown alike. */
function edge(value) {
  const short = value.toFixed(3);
  return Number(short) === value ? short : value.toFixed(4);
}

export function bytes(count) {
  if (count < 1000) return `${count}\u00a0B`;
  if (count < 1e6) return `${(count / 1e3).toFixed(0)}\u00a0kB`;
  return `${(count / 1e6).toFixed(1)}\u00a0MB`;
}

export function milliseconds(value) {
  if (value < 1000) return `${value.toFixed(value < 10 ? 1 : 0)}\u00a0ms`;
  return `${(value / 1000).toFixed(1)}\u00a0s`;
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}
