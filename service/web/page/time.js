// Waiting that ends.

/**
 * A signal that is aborted with another one, or after some seconds; AbortSignal.any, which browsers of
 * 2023 lack.
 */
export function within(seconds, stopped) {
  const end = new AbortController();
  for (const signal of [stopped, AbortSignal.timeout(seconds * 1000)]) {
    const stop = () => end.abort(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { signal: end.signal });
  }
  return end.signal;
}
