// The table of dead letters: what an event was, why nobody could digest it, and what to do with it.

import { keyed, make, say, table } from "../dom.js";
import { ago, moment } from "../format.js";

const COLUMNS = [
  { title: "Event" }, { title: "Queue" }, { title: "Reason" }, { title: "Deliveries", className: "num" },
  { title: "Died", className: "num" }, { title: "", className: "actions" },
];
const REASONS = { delivery_limit: "failed each time it was delivered", rejected: "refused by its handler", expired: "nobody took it in time" };

/** `update(items)`; `replay(letter)` and `discard(letter)` are asked for by its buttons. */
export function lettersTable(replay, discard) {
  const made = table("Dead letters", COLUMNS);
  made.classList.add("letters");
  made.update = (items) => {
    made.hidden = items.length === 0;
    keyed(made.body, items, ({ id }) => id, (letter) => letterRow(letter, replay, discard));
  };
  return made;
}

function letterRow(letter, replay, discard) {
  const { parsed, text } = read(letter.body);
  const name = typeof parsed?.type === "string" ? parsed.type : "not an event";
  const body = make("pre", { hidden: true, tabIndex: 0, "aria-label": "Body" });
  const open = make("button", { type: "button", className: "plain small", "aria-expanded": "false" }, "Show the body");
  open.addEventListener("click", () => {
    body.hidden = !body.hidden;
    if (!body.textContent) body.textContent = text;
    open.setAttribute("aria-expanded", String(!body.hidden));
    say(open, body.hidden ? "Show the body" : "Hide the body");
  });
  const died = make("td", { className: "num", title: letter.died_at ? moment(letter.died_at) : "" });
  const row = make("tr", {},
    make("td", { className: "letter-event" }, make("b", { className: "break" }, name), make("code", { className: "quiet", title: letter.id }, letter.id.slice(0, 12)), open, body),
    make("td", { className: "mono" }, letter.queue),
    make("td", {}, make("code", {}, letter.reason), make("span", { className: "about" }, REASONS[letter.reason] ?? "")),
    make("td", { className: "num" }, String(letter.deliveries)),
    died,
    make("td", { className: "actions" },
      make("button", { type: "button", "aria-label": `Replay ${name} ${letter.id}`, onclick: () => replay(letter, name) }, "Replay"),
      make("button", { type: "button", className: "plain", "aria-label": `Discard ${name} ${letter.id}`, onclick: () => discard(letter, name) }, "Discard")));
  row.update = () => say(died, ago(letter.died_at));
  return row;
}

/** Indented where it is JSON; cut off by the gateway, or broken, it stays as it is. */
function read(body) {
  try {
    const parsed = JSON.parse(body);
    return { parsed, text: JSON.stringify(parsed, null, 2) };
  } catch {
    return { parsed: null, text: body };
  }
}
