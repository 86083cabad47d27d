// Asks before something is done that cannot be taken back, and says what will happen.

import { make } from "../dom.js";

/** A promise of true, if whoever is asked says so. */
export function confirmed({ title, text, action }) {
  const heading = make("h2", { id: "confirm-title" }, title);
  const go = make("button", { type: "submit", value: "go" }, action);
  const dialog = make("dialog", { "aria-labelledby": "confirm-title" },
    make("form", { method: "dialog" }, heading, ...text.map((each) => make("p", {}, each)),
      make("p", { className: "buttons" }, go, make("button", { type: "submit", value: "no", className: "plain" }, "Cancel"))));
  // It goes with the page, as all does that is of whoever is signed in.
  document.getElementById("main").append(dialog);
  dialog.showModal();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      answer(dialog.returnValue === "go");
    });
  });
}
