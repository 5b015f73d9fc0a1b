// Which view is shown stands behind the `#` of the URL: `#/clients/acme?from=…`. So every view, with its filters and its
// page, is a link that can be sent to somebody, and the browser's Back works.

/** A link to a view; empty values are left out. */
export function link(path, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(kept).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** Where the URL points: the parts of its path, and its query. */
export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return {
    path: path.split("/").filter(Boolean).map(decoded),
    query: Object.fromEntries(new URLSearchParams(query ?? "")),
  };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function go(path, query) {
  location.hash = link(path, query);
}
