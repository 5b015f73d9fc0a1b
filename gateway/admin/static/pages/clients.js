// All clients, a page at a time: search, filters, and how much each may.

import { get } from "../lib/api.js";
import { h, put } from "../lib/dom.js";
import { ago, count, plural } from "../lib/format.js";
import { may } from "../lib/session.js";
import { edit } from "../parts/client_form.js";
import { filters, isFiltered } from "../parts/filters.js";
import { empty, loading } from "../parts/states.js";
import { pager, table } from "../parts/table.js";
import { badge, clientLink, heading } from "../parts/words.js";

const LIMIT = 50;
const PATH = ["clients"];

export const title = () => "Clients";

export async function show(room, { query, signal, again }) {
  const counted = h("span", { class: "faint" });
  const list = h("section", { class: "panel" });
  const fields = [
    { name: "search", label: "Id contains", placeholder: "acme", wide: true },
    { name: "tier", label: "Tier", placeholder: "any" },
    { name: "enabled", label: "Takes requests", options: [["", "any"], ["true", "enabled"], ["false", "disabled"]] },
  ];
  const add = may("admin") && h("div", { class: "end" }, h("button", { type: "button", onclick: () => edit(null, again) }, "New client…"));
  put(room, heading("Clients", counted, add), h("section", { class: "panel" }, filters(PATH, query, fields)), list);
  await loading(list, () => page(query, signal, counted), signal);
}

async function page(query, signal, counted) {
  const told = await get("clients", { ...query, limit: LIMIT }, signal);
  put(counted, isFiltered(query) ? `${plural(told.count, "client")} match` : plural(told.count, "client"));
  if (!told.clients.length) {
    return isFiltered(query)
      ? empty("No client matches", "Take a filter out, or search for a shorter part of the id.")
      : empty("There are no clients yet", "A client is created by its first request, unless AUTO_CREATE_CLIENTS is false; or make one here.");
  }
  return [table("Clients", COLUMNS, told.clients), pager(PATH, query, told.next_cursor)];
}

const COLUMNS = [
  { label: "Client", cell: (client) => clientLink(client.client_id), wide: true },
  { label: "Tier", cell: (client) => client.tier },
  { label: "At once", cell: (client) => count(client.rate_limit.max_concurrent), number: true },
  { label: "A minute", cell: (client) => count(client.rate_limit.requests_per_min), number: true },
  { label: "Limits are", cell: (client) => (client.source === "tier" ? "the tier’s" : "its own") },
  { label: "Queues", cell: (client) => client.allowed_queues?.join(", ") ?? "all" },
  { label: "State", cell: (client) => (client.enabled ? badge("enabled", "good") : badge("disabled", "bad")) },
  { label: "Changed", cell: (client) => ago(client.updated_at), number: true },
];
