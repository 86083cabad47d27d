// The time line of a pull: a lane for each attempt, a piece for each state, as long as it lasted.

import { keyed, make, say, table } from "../dom.js";
import { clock, duration, moment, now } from "../format.js";
import { toneOf, UNDER_WAY } from "./state.js";

// A piece that is shorter is still seen, and pressed on.
const LEAST_SHARE = 0.004;

/** From steps to stretches of time: `{state, attempt, from, to, ended, key}`. */
export function stretches(steps) {
  return steps.map(({ state, at, attempt }, place) => {
    const next = steps[place + 1];
    const isLasting = UNDER_WAY.includes(state);
    const from = Date.parse(at);
    return { key: place, state, attempt, from, to: next ? Date.parse(next.at) : isLasting ? now() : from, ended: Boolean(next) || !isLasting };
  });
}

export function timeLine() {
  const lanes = make("div", { className: "lanes", role: "img" });
  const scale = make("p", { className: "scale quiet" }, make("span"), make("span"));
  const rows = table("Time line", [{ title: "State" }, { title: "Attempt", className: "num" }, { title: "From", className: "num" }, { title: "Lasted", className: "num" }]);
  const empty = make("p", { className: "empty" }, "No time line was kept of this pull.");
  const made = make("div", { className: "time-line" }, lanes, scale, rows, empty);
  made.update = (steps) => {
    const all = stretches(steps);
    for (const one of [lanes, scale, rows]) one.hidden = all.length === 0;
    empty.hidden = all.length > 0;
    if (all.length === 0) return;
    const from = all[0].from;
    const to = Math.max(all.at(-1).to, from + 1);
    const attempts = [...new Set(all.map(({ attempt }) => attempt))];
    rows.classList.toggle("single", attempts.length === 1);
    lanes.setAttribute("aria-label", all.map((one) => `${one.state} ${lasted(one)}`).join(", "));
    keyed(lanes, attempts.map((attempt) => ({ attempt, several: attempts.length > 1, pieces: all.filter((one) => one.attempt === attempt), from, to })),
      ({ attempt }) => attempt, lane);
    say(scale.firstElementChild, clock(from));
    say(scale.lastElementChild, `${duration((to - from) / 1000)} in all`);
    keyed(rows.body, all, ({ key }) => key, rowOf);
  };
  return made;
}

const lasted = (one) => (UNDER_WAY.includes(one.state) ? `${duration((one.to - one.from) / 1000)}${one.ended ? "" : " so far"}` : "");

function lane() {
  const name = make("span", { className: "quiet" });
  const track = make("div", { className: "track" });
  const made = make("div", { className: "lane" }, name, track);
  made.update = ({ attempt, several, pieces, from, to }) => {
    name.hidden = !several;
    say(name, `Attempt ${attempt}`);
    const place = (instant) => (instant - from) / (to - from);
    const placed = pieces.map((one) => ({ ...one, left: Math.min(1 - LEAST_SHARE, place(one.from)), width: place(one.to) - place(one.from) }));
    keyed(track, placed, ({ key }) => key, () => {
      const word = make("span");
      const piece = make("div", { className: "piece" }, word);
      piece.update = (one) => {
        const isMark = !UNDER_WAY.includes(one.state);
        piece.className = `piece piece-${one.state.toLowerCase()}${isMark ? " mark" : ""}`;
        piece.style.setProperty("left", `${100 * one.left}%`);
        if (!isMark) piece.style.setProperty("width", `${100 * Math.max(LEAST_SHARE, one.width)}%`);
        piece.dataset.tone = toneOf(one.state);
        piece.title = `${one.state} ${lasted(one)}`.trim();
        say(word, isMark ? "" : one.state);
      };
      return piece;
    });
  };
  return made;
}

function rowOf() {
  const key = make("i");
  const state = make("span");
  const [attempt, from, took] = [1, 2, 3].map(() => make("td", { className: "num" }));
  const row = make("tr", {}, make("td", { className: "step-name" }, key, state), attempt, from, took);
  row.update = (one) => {
    key.className = `key piece-${one.state.toLowerCase()}`;
    key.dataset.tone = toneOf(one.state);
    say(state, one.state);
    say(attempt, String(one.attempt));
    say(from, clock(one.from));
    from.title = moment(one.from);
    say(took, lasted(one) || "–");
  };
  return row;
}
