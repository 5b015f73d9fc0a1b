// The tiers: what each allows, how many clients are of it, what it earns; store, change and delete them.

import { call, get } from "../lib/api.js";
import { h, put } from "../lib/dom.js";
import { count, plural } from "../lib/format.js";
import { link } from "../lib/router.js";
import { may } from "../lib/session.js";
import { confirmed } from "../parts/dialog.js";
import { loading } from "../parts/states.js";
import { table } from "../parts/table.js";
import { edit, priceOf } from "../parts/tier_form.js";
import { doing } from "../parts/toast.js";
import { heading } from "../parts/words.js";

const SOURCES = { stored: "stored", file: "TIERS_FILE", shipped: "as shipped" };

export const title = () => "Tiers";

export async function show(room, { signal, again }) {
  const list = h("section", { class: "panel" });
  const add = may("admin") && h("div", { class: "end" }, h("button", { type: "button", onclick: () => edit(null, again) }, "New tier…"));
  put(room, heading("Tiers", add), list);
  await loading(list, () => page(signal, again), signal);
}

async function page(signal, again) {
  const { tiers } = await get("tiers", { figures: true }, signal);
  const rows = Object.entries(tiers).map(([name, tier]) => ({ name, ...tier })).sort((one, other) => one.requests_per_min - other.requests_per_min || one.name.localeCompare(other.name));
  const doable = may("admin") ? [{ label: "Do", number: true, cell: (tier) => buttons(tier, again) }] : [];
  return [
    table("Tiers", [...COLUMNS, ...doable], rows),
    h("p", { class: "faint" }, "A client of a tier has its limits, unless it has its own. What is stored here goes before TIERS_FILE and what is shipped, on every replica."),
  ];
}

const COLUMNS = [
  { label: "Tier", cell: (tier) => h("span", { class: "id" }, tier.name), wide: true },
  { label: "At once", cell: (tier) => count(tier.max_concurrent), number: true },
  { label: "A minute", cell: (tier) => count(tier.requests_per_min), number: true },
  { label: "Clients", cell: (tier) => h("a", { href: link(["clients"], { tier: tier.name }), "aria-label": `${plural(tier.clients, "client")} of ${tier.name}` }, count(tier.clients)), number: true },
  { label: "Enabled", cell: (tier) => count(tier.enabled), number: true },
  { label: "Price", cell: (tier) => priceOf(tier.price), number: true },
  { label: "Revenue", cell: (tier) => priceOf(tier.revenue), number: true },
  { label: "From", cell: (tier) => SOURCES[tier.source] },
];

function buttons(tier, again) {
  const stored = tier.source === "stored";
  return h(
    "span",
    { class: "actions" },
    h("button", { type: "button", class: "small", "aria-label": `Edit ${tier.name}`, onclick: () => edit(tier.name, again) }, "Edit…"),
    stored && h("button", { type: "button", class: "small danger", "aria-label": `Delete ${tier.name}`, onclick: () => remove(tier, again) }, "Delete…"),
  );
}

async function remove({ name }, again) {
  const text = "What is stored is removed: the tier of TIERS_FILE or the shipped one of this name holds again, where there is one. Else it must have no clients.";
  if (!(await confirmed(`Delete ${name}?`, h("p", {}, text), { action: "Delete", danger: true }))) return;
  const said = (tier) => (tier === true ? `${name} is deleted.` : `${name} is ${SOURCES[tier.source]} again.`);
  if (await doing(async () => (await call("DELETE", `tiers/${encodeURIComponent(name)}`)) ?? true, said)) again();
}
