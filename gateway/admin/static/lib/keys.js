// Shortcuts: a letter, or `g` and a letter. Not while something is being typed or a dialog is open.

import { h } from "./dom.js";
import { tell } from "../parts/dialog.js";

const GOES = [
  ["o", "overview", "Overview"],
  ["c", "clients", "Clients"],
  ["l", "tiers", "Tiers"],
  ["t", "tasks", "Tasks"],
  ["d", "dead", "Dead letters"],
  ["j", "jobs", "Jobs"],
  ["r", "replicas", "Replicas and Redis"],
  ["a", "audit", "Audit log"],
];
const WAIT = 1500; // ms between `g` and its letter

/** Listens; `reload` shows the view anew. */
export function listen(reload) {
  let since = -Infinity;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target) || document.querySelector("dialog[open]")) return;
    const page = performance.now() - since < WAIT && GOES.find(([letter]) => letter === event.key);
    since = event.key === "g" ? performance.now() : -Infinity;
    if (page) location.hash = `#/${page[1]}`;
    else if (event.key === "?") help();
    else if (event.key === "r") reload();
    else if (event.key === "/") {
      const field = document.querySelector("main [data-search]");
      if (field === null) return;
      event.preventDefault();
      field.focus();
      field.select?.();
    }
  });
}

const typing = (target) => target instanceof HTMLElement && target.matches("input, select, textarea");

export function help() {
  const rows = [
    ["/", "to the search or the first filter"],
    ["r", "show this view anew"],
    ...GOES.map(([letter, , label]) => [`g ${letter}`, label]),
    ["Esc", "close what is open"],
    ["?", "this list"],
  ];
  const list = rows.flatMap(([keys, what]) => [
    h("dt", {}, keys.split(" ").map((key) => h("kbd", {}, key))),
    h("dd", {}, what),
  ]);
  return tell("Shortcuts", h("dl", { class: "pairs keys" }, list));
}
