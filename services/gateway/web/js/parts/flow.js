// The way of a pull as a line of stations: how many are where, how long, and what waits before them.

import { keyed, make, say } from "../dom.js";
import { number, roughAge } from "../format.js";

/** Which queue stands before which state's work. */
const QUEUE_BEFORE = [["PULLING", /^converter\./], ["TRANSFER", /^distributor\./]];

export function flow() {
  const list = make("ol", { className: "flow" });
  list.update = ({ stages, queues, failed }, ready) => {
    const shown = stages.filter(({ state, pulls }) => state !== "EXAMINATION" || pulls > 0 || list.keyedChildren?.has(state));
    const most = Math.max(1, ...shown.map(({ pulls }) => pulls));
    const stations = shown.map((stage) => ({ ...stage, count: stage.pulls, share: stage.pulls / most, before: queuesBefore(stage.state, queues) }));
    keyed(list, [...stations, { state: "READY", count: ready }, { state: "FAILURE", count: failed }], ({ state }) => state, station);
  };
  return list;
}

function queuesBefore(state, queues) {
  const found = QUEUE_BEFORE.find(([name]) => name === state);
  return found && queues ? queues.filter(({ name }) => found[1].test(name)) : [];
}

function station({ state }) {
  const count = make("strong");
  const detail = make("span", { className: "detail" });
  const queue = make("span", { className: "queue" });
  const path = state === "READY" ? "#/images" : `#/pulls?state=${state}`;
  const made = make("li", { className: `station station-${state.toLowerCase()}` },
    make("a", { href: path }, make("span", { className: "name" }, state), make("span", { className: "figures" }, count, queue), detail, make("i", { className: "fill" })));
  made.update = (stage) => {
    say(count, stage.count === null ? "" : number(stage.count));
    say(detail, detailOf(stage));
    made.dataset.tone = toneOf(stage);
    made.classList.toggle("none", !stage.count);
    made.style.setProperty("--share", (stage.share ?? 0).toFixed(3));
    say(queue, queueWords(stage.before ?? []));
    queue.title = (stage.before ?? []).map(({ name, waiting, consumers }) => `${name}: ${waiting} waiting, ${consumers} consumers`).join("\n");
    queue.dataset.tone = stage.before?.some(({ consumers }) => consumers === 0) ? "bad" : "wait";
    queue.hidden = queue.textContent === "";
  };
  return made;
}

function toneOf({ state, count, waiting }) {
  if (state === "READY") return "good";
  if (state === "FAILURE") return count ? "bad" : "wait";
  if (!count) return "wait";
  return waiting === count ? "warn" : "work";
}

function detailOf({ state, count, waiting, oldest_seconds: oldest }) {
  if (state === "READY") return count === null ? "see the images" : "in the last hour";
  if (state === "FAILURE") return count ? "see why" : "none";
  if (!count) return "none";
  const words = waiting ? [`${number(waiting)} waiting`] : [];
  return [...words, `oldest ${roughAge(oldest)}`].join(", ");
}

function queueWords(queues) {
  if (queues.length === 0) return "";
  const waiting = queues.reduce((sum, queue) => sum + queue.waiting, 0);
  const missing = queues.filter(({ consumers }) => consumers === 0).length;
  return `queue ${number(waiting)}${missing ? ", no consumer" : ""}`;
}
