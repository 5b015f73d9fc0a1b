// The login: the key goes to the gateway once, which gives a cookie for it that no script can read.

import { h, put } from "../lib/dom.js";
import { logIn } from "../lib/session.js";

export function show(door, note, enter) {
  const problem = h("p", { class: "problem", role: "alert" });
  const field = h("input", { type: "password", name: "key", required: true, autocomplete: "current-password", id: "key", "aria-describedby": "key-help" });
  const button = h("button", { class: "primary" }, "Log in");

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    put(problem);
    try {
      await logIn(field.value);
      enter();
    } catch (refusal) {
      put(problem, refusal.status === 401 ? "That is not an admin key of this gateway." : refusal.message);
      field.select();
    } finally {
      button.disabled = false;
    }
  }

  put(
    door,
    h(
      "main",
      { class: "panel" },
      h("h1", {}, h("img", { src: "ui/icon.svg", alt: "", width: 26, height: 26 }), "Gateway"),
      note && h("p", {}, note),
      h(
        "form",
        { onsubmit: submit },
        h("label", { class: "field wide", htmlFor: "key" }, h("span", {}, "Admin key"), field),
        h("p", { class: "faint", id: "key-help" }, "The value of ", h("code", {}, "ADMIN_API_KEY"), ", or a key of ", h("code", {}, "ADMIN_KEYS"), ". The session ends after an hour unused."),
        problem,
        h("div", { class: "buttons" }, button),
      ),
    ),
  );
  field.focus();
}
