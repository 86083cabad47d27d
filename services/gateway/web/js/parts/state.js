// The word of a state, with its colour and shape; how far something is, as a bar.

import { make, say } from "../dom.js";

export const UNDER_WAY = ["INIT", "PULLING", "EXAMINATION", "CONVERSION", "TRANSFER"];
const TONES = { INIT: "wait", READY: "good", FAILURE: "bad", EXPIRING: "wait", EXPIRED: "wait" };

export const toneOf = (state) => TONES[state] ?? "work";

export function stateChip() {
  const made = make("span", { className: "state" });
  made.update = (state) => {
    say(made, state);
    made.dataset.tone = toneOf(state);
  };
  return made;
}

/** A bar that says its name and its percentage to those who do not see it. */
export function meter(name) {
  const made = make("span", { className: "meter", role: "progressbar", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100 },
    make("i"));
  let shown = null;
  made.update = (done, total) => {
    const part = total ? Math.min(1, done / total) : 0;
    if (part === shown) return;
    shown = part;
    made.style.setProperty("--part", part.toFixed(4));
    made.setAttribute("aria-valuenow", Math.floor(100 * part));
  };
  return made;
}
