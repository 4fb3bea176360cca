// The API key, where the service asks for one. It is in this page's memory and nowhere else.

let key = "";

export const use = (text) => {
  key = text.trim();
};

export const isGiven = () => key !== "";

/** Whether a key can stand in a header; one that comes out of a letter may hold what is not seen. */
export const isPlain = (text) => /^[!-~]+$/.test(text.trim());

/** Headers of a request, with the key if there is one. */
export const headers = (others) => (key ? { ...others, Authorization: `Bearer ${key}` } : others);

/** Whether an error says that nothing is answered to this page, as it is. */
export const isRefusal = (error) => error?.status === 401 || error?.status === 403;

/**
 * Whether an error says that a key is missing, wrong, or not for this. Without keys, a service has
 * other reasons to refuse, and so has a proxy: a key would change nothing.
 */
export const isWanted = (error) =>
  error?.status === 401 || (error?.status === 403 && error.code === "forbidden");
