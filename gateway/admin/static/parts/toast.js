// A word about what was done, at the edge of the page and for screen readers.

import { h } from "../lib/dom.js";

const SHOWN = 6000; // ms; a failure stays until it is closed

export function toast(text, { bad = false } = {}) {
  const close = h("button", { type: "button", "aria-label": "Close this message", onclick: () => box.remove() }, "×");
  const box = h("div", { class: bad ? "toast bad" : "toast" }, h("span", {}, text), close);
  document.getElementById("toasts").append(box);
  if (!bad) setTimeout(() => box.remove(), SHOWN);
}

/** Does something to the gateway and says how it went; undefined where it failed. */
export async function doing(work, success) {
  try {
    const done = await work();
    toast(typeof success === "function" ? success(done) : success);
    return done ?? true;
  } catch (problem) {
    if (problem.status !== 401) toast(`${problem.error ?? "Failed"}: ${problem.message}`, { bad: true });
    return undefined;
  }
}
