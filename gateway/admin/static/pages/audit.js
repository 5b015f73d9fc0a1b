// What operators changed, newest first.

import { get } from "../lib/api.js";
import { h, put } from "../lib/dom.js";
import { count, moment } from "../lib/format.js";
import { tell } from "../parts/dialog.js";
import { filters, isFiltered } from "../parts/filters.js";
import { empty, loading } from "../parts/states.js";
import { pager, table } from "../parts/table.js";
import { clientLink, heading } from "../parts/words.js";

const PATH = ["audit"];
const PAGE = 50;
const SEARCHED = 500; // entries a page where those of some actions are picked, which happens here

export const title = () => "Audit log";

export async function show(room, { query, signal }) {
  const list = h("section", { class: "panel" });
  const fields = [
    { name: "client_id", label: "Client" },
    { name: "action", label: "Action contains", placeholder: "pause" },
    { name: "key_name", label: "Key" },
  ];
  put(room, heading("Audit log"), h("section", { class: "panel" }, filters(PATH, query, fields)), list);
  await loading(list, () => page(query, signal), signal);
}

async function page(query, signal) {
  const { action, ...asked } = query;
  const told = await get("audit", { ...asked, limit: action ? SEARCHED : PAGE }, signal);
  const entries = told.entries.filter((entry) => !action || entry.action.includes(action));
  if (!entries.length) {
    if (!isFiltered(query)) return empty("Nothing has been changed yet", "Every change by way of /admin is noted here, from this page, the command line and scripts.");
    return [empty("No entry of this page matches", told.next_cursor ? "There are older ones to look at." : "Take a filter out."), pager(PATH, query, told.next_cursor)];
  }
  return [table("What operators changed, newest first", COLUMNS, entries), pager(PATH, query, told.next_cursor)];
}

const COLUMNS = [
  { label: "When", cell: (entry) => moment(entry.at) },
  { label: "Action", cell: (entry) => h("b", {}, entry.action.replaceAll("_", " ")) },
  { label: "Client", cell: (entry) => (entry.client_id ? clientLink(entry.client_id) : "–") },
  { label: "Queue", cell: (entry) => entry.queue ?? "–" },
  { label: "Tasks", cell: (entry) => count(entry.tasks), number: true },
  { label: "What", cell: changed, wide: true },
  { label: "From", cell: (entry) => entry.address },
  { label: "Key", cell: (entry) => entry.key ?? "none" },
];

/** What differs between before and after, in a line; the whole of both in a dialog. */
function changed(entry) {
  const { before, after } = entry;
  if (before === null && after === null) return "–";
  const names = [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])].filter((name) => name !== "updated_at" && text(before?.[name]) !== text(after?.[name]));
  const line = before && after ? names.map((name) => `${name} ${text(before[name])} → ${text(after[name])}`).join("; ") : after ? "made" : "removed";
  const whose = entry.client_id ?? (after ?? before).name ?? ""; // what is no client's is a tier's
  const both = h("div", { class: "content" }, h("h3", {}, "Before"), h("pre", { class: "body" }, JSON.stringify(before, null, 2)), h("h3", {}, "After"), h("pre", { class: "body" }, JSON.stringify(after, null, 2)), h("p", { class: "faint" }, "Request ", h("code", {}, entry.request_id)));
  return [entry.client_id || !whose ? null : `${whose}: `, line || "no difference", " ", h("button", { type: "button", class: "small", "aria-label": `Show all of ${entry.action} at ${entry.at}`, onclick: () => tell(`${entry.action.replaceAll("_", " ")} ${whose}`, both, true) }, "Show")];
}

const text = (value) => (value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));
