// What is known of a file's slices, which may be of several requests where it was tried again.
//
// An answer is {entries, context, older, settled}. `older` has the contexts of the entries that are not
// of the last request, and `settled` the answers that slices got which a request had no result for.

/** The context of the request that gave an entry. */
export const contextOf = (answer, entry) => answer.older?.get(entry) ?? answer.context;

/** What has the same key, in lists by it; Map.groupBy, which browsers of 2023 lack. */
export function grouped(values, keyOf) {
  const groups = new Map();
  for (const value of values) {
    const key = keyOf(value);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(value);
  }
  return groups;
}

/**
 * An answer with a later one to the same file: the later result of each slice counts, but an error never
 * takes the place of a result.
 */
export function merged(earlier, later) {
  if (!earlier) return { ...later, older: undefined, settled: undefined };
  const before = grouped(earlier.entries, ({ input }) => input);
  const after = grouped(later.entries, ({ input }) => input);
  const settled = new Map(earlier.settled);
  const inputs = new Set([...before.keys(), ...after.keys()]);
  const entries = [...inputs].flatMap((input) =>
    joined(before.get(input) ?? [], after.get(input) ?? [], settled),
  );
  const isLater = new Set(later.entries);
  const older = new Map(
    entries.filter((entry) => !isLater.has(entry)).map((entry) => [entry, contextOf(earlier, entry)]),
  );
  return { entries, context: later.context, older, settled };
}

/** The entries of one input. */
function joined(before, after, settled) {
  const [known, now] = [before, after].map(byPlace);
  // Where an input cannot be read at all, its one error is of none of its frames.
  const isAll = [...known].every(([place, { error }]) => error || now.has(place));
  const shown = new Map(
    [...(isAll ? now : known).keys()].map((place) => {
      const [old, recent] = [known.get(place), now.get(place)];
      return [place, !recent || (recent.error && old && !old.error) ? old : recent];
    }),
  );
  const entries = [...shown.values()];
  const result = entries.find(({ error }) => !error);
  for (const [place, entry] of [...known, ...now]) {
    const instead = shown.get(place) ?? result;
    if (entry.error && instead && !instead.error) settled.set(entry, instead);
  }
  return entries;
}

/** Entries by the object and frame; where several are alike, as they come. */
function byPlace(entries) {
  const seen = new Map();
  return new Map(
    entries.map((entry) => {
      const { sop_instance_uid: instance, frame } = entry.dicom ?? {};
      const place = [instance, frame].join(" ");
      seen.set(place, (seen.get(place) ?? 0) + 1);
      return [`${place} ${seen.get(place)}`, entry];
    }),
  );
}
