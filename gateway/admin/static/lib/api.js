// Calls of the operators' API, with the session's cookie and the header that marks them as this page's own.

const ROOT = new URL("../../", import.meta.url);

/** An answer other than the one asked for, in the gateway's words. `status` 0: nobody answered. */
export class ApiError extends Error {
  constructor(status, error, message, body = {}) {
    super(message);
    this.status = status;
    this.error = error;
    this.body = body;
  }
}

/** The URL of a path below /admin, with a query whose empty values are left out. */
export function urlOf(path, query = {}) {
  const url = new URL(path, ROOT);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

/** The JSON that is answered, null where there is none. Throws ApiError. A 401 also tells the page that it is out. */
export async function call(method, path, { query, body, signal } = {}) {
  const headers = { "X-Requested-With": "gateway" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  let told = null;
  try {
    answer = await fetch(urlOf(path, query), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
      redirect: "error",
    });
    const text = await answer.text();
    told = text ? JSON.parse(text) : null;
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new ApiError(0, "No answer", "The gateway does not answer. Is it running, and can this browser reach it?");
  }
  if (answer.ok) return told;
  if (answer.status === 401) document.dispatchEvent(new Event("loggedout"));
  throw new ApiError(answer.status, told?.error ?? answer.statusText, told?.message ?? "", told ?? {});
}

export const get = (path, query, signal) => call("GET", path, { query, signal });
