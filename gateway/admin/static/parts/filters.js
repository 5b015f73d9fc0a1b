// A form of filters; what is chosen goes into the URL, so that a filtered list is a link.

import { h } from "../lib/dom.js";
import { clock } from "../lib/format.js";
import { go } from "../lib/router.js";

/**
 * `fields`: `{name, label, options, moment, placeholder, mode, wide}`; `options` are texts or [value, label] pairs; a `moment` is
 * a time. `path` is the view's. The first field is where `/` goes.
 */
export function filters(path, query, fields, ...more) {
  const form = h(
    "form",
    {
      class: "filters",
      role: "search",
      onsubmit: (event) => {
        event.preventDefault();
        const moments = new Set(fields.filter((field) => field.moment).map((field) => field.name));
        const chosen = [...new FormData(form)].map(([name, value]) => [name, moments.has(name) ? toIso(value) : value.trim()]);
        go(path, Object.fromEntries(chosen));
      },
    },
    fields.map((field, index) => one(field, query[field.name] ?? "", index === 0)),
    h("div", { class: "buttons" }, h("button", { class: "primary" }, "Apply"), isFiltered(query) && h("button", { type: "button", onclick: () => go(path) }, "Clear"), more),
  );
  return form;
}

export const isFiltered = (query) => Object.keys(query).some((name) => name !== "cursor");

function one(field, value, first) {
  const common = { name: field.name, "data-search": first };
  const input = field.options
    ? h("select", { ...common, onchange: (event) => event.target.form.requestSubmit() }, options(field.options, value))
    : h("input", { ...common, ...(field.moment ? { type: "datetime-local", step: 1, value: toLocal(value) } : { value }), placeholder: field.placeholder, inputmode: field.mode, spellcheck: "false", autocomplete: "off" });
  return h("label", { class: field.wide ? "field wide" : field.moment ? "field moment" : "field" }, h("span", {}, field.label), input);
}

// The field speaks the browser's zone without naming it, the gateway RFC 3339.
const toIso = (local) => (local ? new Date(local).toISOString() : "");
const toLocal = (iso) => (Number.isNaN(Date.parse(iso)) ? "" : clock(iso).replace(" ", "T"));

const options = (known, value) =>
  known.map((option) => {
    const [text, label] = Array.isArray(option) ? option : [option, option];
    return h("option", { value: text, selected: text === value }, label);
  });
