// Making and editing a client: a form, then what would change, then the change.

import { call, get } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { confirmed, tell } from "./dialog.js";
import { table } from "./table.js";
import { doing, toast } from "./toast.js";

const ID = { pattern: "[A-Za-z0-9_\\-]{3,64}", title: "3 to 64 of the characters A-Z a-z 0-9 _ -" };
const NUMBER = { pattern: "[1-9][0-9]*", title: "A whole number of at least 1", inputmode: "numeric" };

/** `id` of null: a new one. `done` is called once it is stored. */
export async function edit(id, done) {
  let tiers;
  let client;
  try {
    // As it is now: the page may have been open for long.
    [{ tiers }, client] = await Promise.all([get("tiers"), id === null ? null : get("clients/get", { client_id: id })]);
  } catch (problem) {
    return toast(`${problem.error}: ${problem.message}`, { bad: true });
  }
  const form = fields(client, tiers);
  if (!(await confirmed(client ? `Edit ${client.client_id}` : "New client", form.content, { action: client ? "Review the changes" : "Review" }))) return;
  const wanted = form.read();
  const changes = differences(client, wanted, tiers);
  if (!changes.length) return tell("Nothing to change", h("p", {}, "What was chosen is what holds already."));
  const review = table(
    "What would change",
    [
      { label: "Setting", cell: ([name]) => name },
      { label: "Now", cell: ([, before]) => before },
      { label: "Then", cell: ([, , after]) => h("b", {}, after), wide: true },
    ],
    changes,
  );
  if (!(await confirmed(client ? `Change ${client.client_id}?` : `Create ${wanted.client_id}?`, [review, h("p", { class: "faint" }, "It holds for the next request on every replica within a second.")], { action: client ? "Change" : "Create" }))) return;
  if (await doing(() => call("PUT", "clients/set", { body: client ? onlyChanged(wanted, changes) : wanted }), `${wanted.client_id} is ${client ? "changed" : "there"}.`)) done(wanted.client_id);
}

function fields(client, tiers) {
  const known = Object.keys(tiers).sort();
  const tier = client?.tier ?? "default";
  const input = (label, name, value, rule) => h("label", { class: "field" }, h("span", {}, label), h("input", { name, value: value ?? "", autocomplete: "off", spellcheck: "false", required: rule !== undefined, ...rule }));
  const check = (label, name, checked, onchange) => h("label", { class: "field check" }, h("input", { type: "checkbox", name, checked, onchange }), h("span", {}, label));
  const own = client?.source === "client";
  const hosts = client?.allowed_hosts?.join(", ") ?? "";
  const limits = h(
    "fieldset",
    { disabled: !own },
    h("legend", { class: "unseen" }, "Limits of its own"),
    h("div", { class: "filters" }, input("Calls at once", "max_concurrent", client?.rate_limit.max_concurrent ?? tiers[tier]?.max_concurrent, NUMBER), input("Requests a minute", "requests_per_min", client?.rate_limit.requests_per_min ?? tiers[tier]?.requests_per_min, NUMBER)),
  );
  const content = h(
    "div",
    { class: "content" },
    client === null && input("Client id (3 to 64 of A-Z a-z 0-9 _ -)", "client_id", "", ID),
    h(
      "label",
      { class: "field" },
      h("span", {}, "Tier"),
      h("select", { name: "tier" }, [...new Set([...known, tier])].map((name) => h("option", { value: name, selected: name === tier }, tiers[name] ? `${name}: ${count(tiers[name].max_concurrent)} at once, ${count(tiers[name].requests_per_min)} a minute` : name))),
    ),
    check("Limits of its own instead of the tier’s", "own", own, (event) => (limits.disabled = !event.target.checked)),
    limits,
    input("Allowed queues, comma separated (none: all)", "allowed_queues", client?.allowed_queues?.join(", ")),
    input("Hosts that its tasks may call, comma separated (none: all)", "allowed_hosts", hosts),
    check("Takes new requests", "enabled", client?.enabled ?? true),
  );
  const of = (name) => content.querySelector(`[name="${name}"]`);
  const list = (name) => {
    const texts = of(name).value.split(",").map((text) => text.trim()).filter(Boolean);
    return texts.length ? texts : null;
  };
  const read = () => {
    return {
      client_id: client?.client_id ?? of("client_id").value.trim(),
      tier: of("tier").value,
      rate_limit: of("own").checked ? { max_concurrent: Number(of("max_concurrent").value), requests_per_min: Number(of("requests_per_min").value) } : null,
      allowed_queues: list("allowed_queues"),
      // An empty list allows none, which an empty field would turn into all: what was not touched is left out.
      allowed_hosts: of("allowed_hosts").value === hosts ? undefined : list("allowed_hosts"),
      enabled: of("enabled").checked,
    };
  };
  return { content, read };
}

const FIELDS = { Tier: ["tier", "rate_limit"], Limits: ["rate_limit"], Queues: ["allowed_queues"], Hosts: ["allowed_hosts"], "New requests": ["enabled"] };

/** What somebody else changes meanwhile stays as they have it. (A new tier alone would bring its own limits.) */
function onlyChanged(wanted, changes) {
  const names = ["client_id", ...changes.flatMap(([name]) => FIELDS[name])];
  return Object.fromEntries(names.map((name) => [name, wanted[name]]));
}

/** The hosts that a client's tasks may call, in words. */
export const hostsOf = (client) => (client?.allowed_hosts ? client.allowed_hosts.join(", ") || "none" : "all");

/** [name, before, after] of each setting that differs. */
function differences(client, wanted, tiers) {
  const limits = (own, tier) => {
    const limit = own ?? tiers[tier];
    return limit ? `${count(limit.max_concurrent)} at once, ${count(limit.requests_per_min)} a minute (${own ? "its own" : "the tier’s"})` : "the tier’s";
  };
  const words = (one) => ({
    Tier: one.tier,
    Limits: limits(one.source === "tier" ? null : one.rate_limit, one.tier),
    Queues: one.allowed_queues?.join(", ") ?? "all",
    Hosts: hostsOf(one.allowed_hosts === undefined ? client : one),
    "New requests": one.enabled ? "taken" : "refused",
  });
  const before = client ? words(client) : {};
  return Object.entries(words(wanted))
    .filter(([name, after]) => before[name] !== after)
    .map(([name, after]) => [name, before[name] ?? "–", after]);
}
