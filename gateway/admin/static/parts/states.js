// What a view shows while it has nothing to show: it waits, there is nothing, or something went wrong. Each says what
// to do.

import { h, put } from "../lib/dom.js";

const ADVICE = {
  0: "Check that the gateway runs and that nothing between it and this browser is down.",
  400: "One of the filters is not as it has to be; correct it or take it out.",
  403: "This key's role, or this address, may not do that.",
  404: "It may have ended and been forgotten (RESULT_TTL), or its id is mistyped.",
  503: "Redis is out of reach or refuses. The gateway keeps trying; so does this page when you show it anew.",
};

export const waiting = () => h("p", { class: "state", "aria-busy": "true" }, "Loading…");

export const empty = (what, advice) => h("div", { class: "state empty" }, h("p", { class: "what" }, what), advice && h("p", {}, advice));

export function failure(problem, again) {
  return h(
    "div",
    { class: "state failure", role: "alert" },
    h("p", { class: "what" }, problem.error ?? "Something went wrong in this page"),
    h("p", {}, problem.message),
    ADVICE[problem.status] && h("p", {}, ADVICE[problem.status]),
    again && h("button", { type: "button", onclick: again }, "Try again"),
  );
}

/** Fills `place` with what `work` answers, or says why it can't; below `head` until then. */
export async function loading(place, work, signal, head = null) {
  put(place, head, waiting());
  try {
    const made = await work();
    if (!signal.aborted) put(place, made);
  } catch (problem) {
    if (problem.name === "AbortError" || signal.aborted || problem.status === 401) return;
    if (problem.status === undefined) console.error(problem); // a defect of this page
    put(place, head, failure(problem, () => loading(place, work, signal, head)));
  }
}
