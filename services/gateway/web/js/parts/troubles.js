// Nodes that failed or are lost, together where the reason is the same: a switch that went away is
// one line, not a thousand.

import { keyed, make, say, table } from "../dom.js";
import { number } from "../format.js";
import { copyButton } from "./facts.js";
import { fold } from "./hostlist.js";

const NO_REASON = { FAILED: "no reason was told", LOST: "its agent is not heard any more" };

/** A table of reasons: `update(nodes)` takes the gateway's stagings. */
export function troubleTable() {
  const made = table("Nodes in trouble, by reason", [{ title: "Nodes", className: "num" }, { title: "State" }, { title: "Reason", className: "break" }, { title: "Which" }, { title: "" }]);
  made.update = (nodes) => {
    const reasons = new Map();
    for (const { node, state, failure } of nodes) {
      const reason = failure?.message ?? NO_REASON[state] ?? "";
      const key = `${state} ${reason}`;
      if (!reasons.has(key)) reasons.set(key, { key, state, reason, code: failure?.code, names: [] });
      reasons.get(key).names.push(node);
    }
    keyed(made.body, [...reasons.values()].toSorted((one, other) => other.names.length - one.names.length), ({ key }) => key, row);
  };
  return made;
}

function row({ state, reason, code }) {
  let names = [];
  const count = make("td", { className: "num" });
  const which = make("div", { className: "mono which", tabIndex: 0, role: "group", "aria-label": "Hostlist" });
  const lost = state === "LOST";
  const made = make("tr", {}, count,
    make("td", {}, make("span", { className: "state", dataset: { tone: lost ? "lost" : "bad" } }, lost ? "lost" : "failed")),
    make("td", { className: "break", title: code }, reason), make("td", { className: "break" }, which),
    make("td", {}, copyButton("Copy the hostlist of these nodes", () => fold(names))));
  made.update = (group) => {
    names = group.names;
    say(count, number(names.length));
    say(which, fold(names));
  };
  return made;
}
