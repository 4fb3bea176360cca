// Waiting for an answer: as long as the service can be reached, which has its own limits.

const ASK_AFTER_SECONDS = 90;
const REACHED_WITHIN_SECONDS = 20;

/**
 * What a request gives; it gets a signal that is aborted with another one, or where the service cannot be
 * reached any more.
 */
export async function whileReachable(stopped, request) {
  const limit = new AbortController();
  const end = () => limit.abort();
  if (stopped.aborted) end();
  const timer = setInterval(async () => {
    if (!(await isReachable(stopped))) end();
  }, ASK_AFTER_SECONDS * 1000);
  stopped.addEventListener("abort", end);
  try {
    return await request(limit.signal);
  } finally {
    clearInterval(timer);
    stopped.removeEventListener("abort", end);
  }
}

export async function isReachable(stopped) {
  try {
    const signal = within(REACHED_WITHIN_SECONDS, stopped);
    const response = await fetch("health/live", { cache: "no-store", signal });
    // Of what runs, this address tells no error: one is a proxy's in front of what does not.
    return response.status < 500;
  } catch {
    return false;
  }
}

/**
 * A signal that is aborted with another one, or after some seconds; AbortSignal.any, which browsers of
 * 2023 lack.
 */
function within(seconds, stopped) {
  const end = new AbortController();
  for (const signal of [stopped, AbortSignal.timeout(seconds * 1000)]) {
    const stop = () => end.abort(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { signal: end.signal });
  }
  return end.signal;
}
