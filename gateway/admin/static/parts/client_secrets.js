// What a client shows that it is the one it says, and what signs its deliveries: both are shown once, when they are made.

import { call, get } from "../lib/api.js";
import { h, put } from "../lib/dom.js";
import { moment } from "../lib/format.js";
import { may } from "../lib/session.js";
import { confirmed, tell } from "./dialog.js";
import { empty, loading } from "./states.js";
import { table } from "./table.js";
import { doing } from "./toast.js";
import { badge } from "./words.js";

const MOST = 2; // of each: an old one and the one that takes its place

/** The two sections of the client's page. */
export function sections(id, signal) {
  const keys = h("section", { class: "panel half" });
  const secrets = h("section", { class: "panel half" });
  showKeys(keys, id, signal);
  showSecrets(secrets, id, signal);
  return h("div", { class: "grid" }, keys, secrets);
}

function showKeys(place, id, signal) {
  const again = () => showKeys(place, id, signal);
  return loading(
    place,
    async () => {
      const { keys, required } = await get("clients/keys", { client_id: id }, signal);
      const named = { client_id: id };
      const create = () => {
        const needed = h("input", { type: "checkbox", checked: true });
        const content = [h("p", {}, "The client shows it with every request, as X-Client-Key."), h("label", { class: "field check" }, needed, h("span", {}, "Refuse requests without it at once"))];
        return make("A new key", "clients/keys", () => ({ ...named, required: needed.checked }), content, "key", again);
      };
      const need = () => ask("Need a key?", "Requests of this client that show none of its keys are refused from then on.", { action: "Need one", danger: false }, () => call("POST", "clients/keys/require", { query: named }), "A key is needed.", again);
      const rotate = () => make("Rotate the key", "clients/keys/rotate", () => named, "A new key is made. The newest of now stays valid beside it, until it is revoked; an older one does not.", "key", again);
      const open = () => ask("Need no key any more?", "All keys of this client are revoked, and whoever names it may enqueue as it.", { action: "Need none", typed: id }, () => call("POST", "clients/keys/release", { query: named }), "No key is needed any more.", again);
      return [
        head("Keys", [badge(required ? "a key is needed" : "no key is needed", required ? "good" : "faint")], [
          !keys.length && button("New key…", create),
          keys.length > 0 && button("Rotate…", rotate),
          keys.length > 0 && !required && button("Need one…", need),
          required && button("Need none…", open, true),
        ]),
        keys.length ? list("Keys of this client", keys, "key_id", "Revoke", (key) => revoke(id, key, keys, again)) : empty(required ? "It has no key, and is closed" : "It has no key", required ? "Every request of it is refused until it gets one." : "Whoever names this client may enqueue as it, unless REQUIRE_CLIENT_KEY is set."),
      ];
    },
    signal,
    head("Keys"),
  );
}

function showSecrets(place, id, signal) {
  const again = () => showSecrets(place, id, signal);
  return loading(
    place,
    async () => {
      const { secrets } = await get("clients/signing", { client_id: id }, signal);
      const create = (title) => () => make(title, "clients/signing", () => ({ client_id: id }), secrets.length ? "Deliveries are signed with both until the old one is deleted, so its receiver can change over in between." : "Every delivery of this client is signed from then on, as Standard Webhooks says.", "secret", again);
      return [
        head("Signing secrets", [], [
          !secrets.length && button("New secret…", create("A new signing secret")),
          secrets.length > 0 && secrets.length < MOST && button("Rotate…", create("Rotate the signing secret")),
        ]),
        secrets.length ? list("Signing secrets of this client", secrets, "secret_id", "Delete", (secret) => remove(id, secret, secrets, again)) : empty("Its deliveries are not signed", "With a secret a receiver can tell that a call is the gateway’s."),
      ];
    },
    signal,
    head("Signing secrets"),
  );
}

const head = (title, more = [], buttons = []) => h("div", { class: "head" }, h("span", { class: "row" }, h("h2", {}, title), more), may("admin") && h("span", { class: "row" }, buttons));

const button = (label, onclick, danger = false) => h("button", { type: "button", class: danger ? "small danger" : "small", onclick }, label);

function list(caption, rows, name, verb, work) {
  const columns = [
    { label: "Id", cell: (row) => h("span", { class: "id" }, row[name]), wide: true },
    { label: "Made", cell: (row) => moment(row.created_at) },
  ];
  if (may("admin")) columns.push({ label: "Do", number: true, cell: (row) => h("button", { type: "button", class: "small danger", "aria-label": `${verb} ${row[name]}`, onclick: () => work(row) }, `${verb}…`) });
  return table(caption, columns, rows);
}

function revoke(id, { key_id: key }, keys, again) {
  const text = keys.length > 1 ? "What shows this key is refused from then on; the other one stays." : "What shows this key is refused from then on. It is the only one: the client is closed until it gets another.";
  return ask(`Revoke ${key}?`, text, { action: "Revoke" }, () => call("DELETE", "clients/keys", { query: { client_id: id, key_id: key } }), `${key} is revoked.`, again);
}

function remove(id, { secret_id: secret }, secrets, again) {
  const text = secrets.length > 1 ? "Deliveries are signed with the other one alone from then on." : "Deliveries are not signed from then on.";
  return ask(`Delete ${secret}?`, text, { action: "Delete" }, () => call("DELETE", "clients/signing", { query: { client_id: id, secret_id: secret } }), `${secret} is deleted.`, again);
}

async function ask(title, text, options, work, said, again) {
  if ((await confirmed(title, h("p", {}, text), { danger: true, ...options })) && (await doing(work, said))) again();
}

/** Makes one and shows it: this is the only moment at which it can be read. */
async function make(title, path, query, content, field, again) {
  if (!(await confirmed(`${title}?`, h("div", { class: "content" }, content), { action: "Make it" }))) return;
  const made = await doing(() => call("POST", path, { query: query() }), `A ${field} was made.`);
  if (made === undefined) return;
  const shown = h("input", { class: "id", readonly: true, value: made[field], "aria-label": `The ${field}`, onfocus: (event) => event.target.select() });
  const copied = h("span", { role: "status" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(made[field]);
      put(copied, "Copied.");
    } catch {
      shown.focus(); // selected, for the browser's own way of copying
      put(copied, "Copy what is selected.");
    }
  };
  await tell(`The ${field}, shown once`, [h("p", {}, "Copy it now: the gateway has no way to show it again."), h("label", { class: "field wide" }, shown), h("span", { class: "row" }, h("button", { type: "button", onclick: copy }, "Copy"), copied)], true);
  again();
}
