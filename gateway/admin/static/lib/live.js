// What changes by itself: the gateway's events, and calls that are repeated. Both rest while nobody looks at the page.

import { call, urlOf } from "./api.js";

/**
 * Tells `heard(body, watched)` whatever one of the `watched` calls answers, now and when it changes, until `signal`;
 * and `failed(body, watched)` where it answers an error.
 */
export function live(watched, heard, failed, signal) {
  let source = null;

  function open() {
    if (source !== null || document.hidden || signal.aborted) return;
    const url = urlOf("ui/events");
    for (const one of watched) url.searchParams.append("watch", one);
    source = new EventSource(url);
    source.addEventListener("open", () => state("live"));
    source.addEventListener("message", (event) => {
      const told = JSON.parse(event.data);
      if (told.status < 400) heard(told.body, told.watch);
      else failed(told.body, told.watch);
    });
    source.addEventListener("error", async () => {
      state("waiting");
      if (source?.readyState !== EventSource.CLOSED) return; // the browser tries again
      close();
      try {
        await call("GET", "session"); // where the session is over, the page says so
      } catch (problem) {
        if (problem.status === 401) return;
      }
      setTimeout(open, 5000);
    });
  }

  function close() {
    source?.close();
    source = null;
  }

  function look() {
    if (document.hidden) {
      close();
      state("resting");
    } else open();
  }

  document.addEventListener("visibilitychange", look, { signal });
  signal.addEventListener("abort", () => {
    close();
    state("");
  });
  open();
}

/** Runs `work` now, and again `seconds` after it ended, until it answers false or `signal`; not while the page is hidden. */
export async function repeat(work, seconds, signal) {
  signal.addEventListener("abort", () => state(""));
  while (!signal.aborted) {
    state(document.hidden ? "resting" : "live");
    if (!document.hidden && (await work()) === false) return state("");
    await new Promise((go) => {
      const timer = setTimeout(go, seconds * 1000);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        go();
      });
    });
  }
}

function state(word) {
  document.dispatchEvent(new CustomEvent("livestate", { detail: word }));
}
