// Dialogs, by the browser's own <dialog>: it keeps the focus inside, closes on Esc and gives the focus back.

import { h } from "../lib/dom.js";

let made = 0;

function open(title, content, buttons, wide = false) {
  const id = `dialog-${(made += 1)}`;
  const dialog = h(
    "dialog",
    { "aria-labelledby": id, class: wide ? "wide" : null },
    h("form", { method: "dialog" }, h("h2", { id }, title), h("div", { class: "content" }, content), h("div", { class: "buttons" }, buttons)),
  );
  document.body.append(dialog);
  const closed = new Promise((done) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      done(dialog.returnValue);
    });
  });
  dialog.showModal();
  return closed;
}

/** Shows something. */
export const tell = (title, content, wide) => open(title, content, [h("button", { value: "close", autofocus: true }, "Close")], wide);

/**
 * Asks before something is changed; whether it was confirmed. `typed`: a word that has to be typed for it, for what can't
 * be undone.
 */
export async function confirmed(title, content, { action, danger = false, typed = null }) {
  const confirm = h("button", { value: "yes", class: danger ? "danger" : "primary", disabled: typed !== null }, action);
  const field =
    typed !== null &&
    h(
      "label",
      { class: "field" },
      h("span", {}, "Type ", h("code", {}, typed), " to go on"),
      h("input", { autocomplete: "off", spellcheck: "false", oninput: (event) => (confirm.disabled = event.target.value !== typed) }),
    );
  const cancel = h("button", { value: "no", formnovalidate: true, autofocus: danger && typed === null }, "Cancel");
  return (await open(title, [content, field], [cancel, confirm])) === "yes";
}
