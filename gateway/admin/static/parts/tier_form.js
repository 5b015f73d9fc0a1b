// Storing a tier: a form, then what would change and for how many clients, then the change.

import { call, get } from "../lib/api.js";
import { h } from "../lib/dom.js";
import { count, plural } from "../lib/format.js";
import { confirmed, tell } from "./dialog.js";
import { table } from "./table.js";
import { doing, toast } from "./toast.js";

const NAME = { pattern: "[A-Za-z0-9_\\-]{1,64}", title: "1 to 64 of the characters A-Z a-z 0-9 _ -", required: true };
const NUMBER = { pattern: "[1-9][0-9]*", title: "A whole number of at least 1", inputmode: "numeric", required: true };
const PRICE = { pattern: "[0-9]+([.][0-9]+)?", title: "A number, 0 or more, such as 49.5", inputmode: "decimal" };

/** A price as people read it, "–" for none. */
export const priceOf = (price) => (price === undefined || price === null ? "–" : price.toLocaleString("en", { maximumFractionDigits: 2 }));

/** `name` of null: a new one. `done` is called once it is stored. */
export async function edit(name, done) {
  let tiers;
  try {
    ({ tiers } = await get("tiers", { figures: true })); // as they are now: the page may have been open for long
  } catch (problem) {
    return toast(`${problem.error}: ${problem.message}`, { bad: true });
  }
  const tier = tiers[name] ?? {};
  const input = (label, field, value, rule) => h("label", { class: "field" }, h("span", {}, label), h("input", { name: field, value: value ?? "", autocomplete: "off", spellcheck: "false", ...rule }));
  const content = h(
    "div",
    { class: "content" },
    name === null && input("Name (1 to 64 of A-Z a-z 0-9 _ -)", "name", "", NAME),
    input("Calls at once", "max_concurrent", tier.max_concurrent, NUMBER),
    input("Requests a minute", "requests_per_min", tier.requests_per_min, NUMBER),
    input("Price, in any unit (none: empty)", "price", tier.price, PRICE),
  );
  if (!(await confirmed(name === null ? "New tier" : `Edit ${name}`, content, { action: "Review" }))) return;
  const of = (field) => content.querySelector(`[name="${field}"]`).value.trim();
  const wanted = name ?? of("name");
  const body = { max_concurrent: Number(of("max_concurrent")), requests_per_min: Number(of("requests_per_min")), price: of("price") === "" ? null : Number(of("price")) };
  const now = tiers[wanted];
  const changes = differences(now, body);
  if (!changes.length) return tell("Nothing to change", h("p", {}, "What was chosen is what holds already."));
  const review = table(
    "What would change",
    [
      { label: "Setting", cell: ([setting]) => setting },
      { label: "Now", cell: ([, before]) => before },
      { label: "Then", cell: ([, , after]) => h("b", {}, after), wide: true },
    ],
    changes,
  );
  const reach = now ? `It is the tier of ${plural(now.clients, "client")}. ` : "";
  if (!(await confirmed(now ? `Change ${wanted}?` : `Create ${wanted}?`, [review, h("p", { class: "faint" }, `${reach}It holds on every replica within a second.`)], { action: now ? "Change" : "Create" }))) return;
  if (await doing(() => call("PUT", `tiers/${encodeURIComponent(wanted)}`, { body }), `${wanted} is ${now ? "changed" : "there"}.`)) done();
}

/** [name, before, after] of each setting that differs. */
function differences(now, body) {
  const words = (tier) => ({ "Calls at once": count(tier.max_concurrent), "Requests a minute": count(tier.requests_per_min), Price: priceOf(tier.price) });
  const before = now ? words(now) : {};
  return Object.entries(words(body))
    .filter(([setting, after]) => before[setting] !== after)
    .map(([setting, after]) => [setting, before[setting] ?? "–", after]);
}
