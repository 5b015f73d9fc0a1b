// Tables that become a list of cards on a narrow page, and the links from page to page.

import { h } from "../lib/dom.js";
import { link } from "../lib/router.js";

/**
 * `columns`: `{label, cell(row), number, wide}`; the first one names the row. `wide` columns take what room there is.
 */
export function table(caption, columns, rows) {
  return h(
    "div",
    { class: "scroll", role: "region", tabindex: "0", "aria-label": caption },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: kind(column) }, column.label)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((column, index) => cell(column, row, index))))),
    ),
  );
}

function cell(column, row, index) {
  const attributes = { class: kind(column), "data-label": column.label };
  const content = h("div", {}, column.cell(row)); // one box beside the label, where the page is narrow
  return index === 0 ? h("th", { ...attributes, scope: "row" }, content) : h("td", attributes, content);
}

const kind = (column) => [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ") || null;

/** "First page" and "Next page"; Back is the browser's. `path` and `query` are the view's own. */
export function pager(path, query, nextCursor) {
  const { cursor, ...others } = query;
  if (!cursor && !nextCursor) return null;
  return h(
    "nav",
    { class: "pager", "aria-label": "Pages of this list" },
    cursor && h("a", { class: "button", href: link(path, others) }, "First page"),
    nextCursor ? h("a", { class: "button", href: link(path, { ...others, cursor: nextCursor }), rel: "next" }, "Next page") : h("span", { class: "faint" }, "Last page"),
  );
}

/** A name and its value, under one another; on a wide page side by side. */
export const pairs = (...entries) =>
  h("dl", { class: "pairs" }, entries.filter(Boolean).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
