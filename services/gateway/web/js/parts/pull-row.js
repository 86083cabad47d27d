// A pull as the row of a table. Nothing is touched that has not changed; ages move on by themselves.

import { keyed, make, say, sayWithCode } from "../dom.js";
import { age, bytes, moment, number, roughAge, shortReference } from "../format.js";
import { briefWords, pathOf, progressWords, secondsOld, waitsFor } from "./pull-facts.js";
import { meter, stateChip } from "./state.js";

/** What columns there are: each makes a cell with `update(pull)`, perhaps `tick(pull)`. */
export const COLUMNS = {
  image: { title: "Image", className: "pull-image", cell: imageCell },
  state: { title: "State", className: "pull-state", cell: stateCell },
  progress: { title: "Progress", className: "pull-progress", cell: progressCell },
  brief: { title: "Progress", className: "pull-progress", cell: briefCell },
  age: { title: "Age", className: "pull-age num", hint: "since it was asked for, or since it failed", cell: () => ageCell(age) },
  roughAge: { title: "Age", className: "pull-age num", hint: "since it was asked for, or since it failed", cell: () => ageCell(roughAge) },
  tries: { title: "Tries", className: "pull-tries num", hint: "attempts of this pull so far", cell: () => textCell((pull) => String(pull.tries)) },
  user: { title: "User", className: "pull-user", cell: () => textCell((pull) => pull.requested_by) },
  reason: { title: "Reason", className: "pull-reason", cell: reasonCell },
};

export function pullRow(names) {
  const cells = names.map((name) => {
    const { className, title, cell } = COLUMNS[name];
    const made = cell();
    made.classList.add(...className.split(" "));
    made.dataset.title = title;
    return made;
  });
  const row = make("tr", { className: "pull" }, ...cells);
  let known = null;
  row.update = (pull) => {
    if (pull !== known) for (const cell of cells) cell.update(pull);
    else for (const cell of cells) cell.tick?.(pull);
    known = pull;
  };
  return row;
}

function textCell(textOf) {
  const cell = make("td");
  cell.update = (pull) => { const text = textOf(pull); say(cell, text); cell.title = text; };
  return cell;
}

function imageCell() {
  const host = make("span", { className: "host" });
  const rest = make("span");
  const link = make("a", { className: "mono" }, host, make("wbr"), rest);
  const about = make("span", { className: "about" });
  const cell = make("td", {}, link, about);
  cell.update = (pull) => {
    link.href = pathOf(pull);
    link.title = pull.reference;
    const [, registry, name] = /^([^/]*[.:][^/]*\/)?(.*)$/s.exec(shortReference(pull.reference));
    say(host, registry ?? "");
    say(rest, name);
    say(about, [pull.system, pull.type === "docker" ? "" : pull.type, pull.private ? "private" : ""].filter(Boolean).join(" · "));
  };
  return cell;
}

function stateCell() {
  const chip = stateChip();
  const cell = make("td", {}, chip);
  cell.update = (pull) => chip.update(pull.state);
  return cell;
}

function ageCell(written) {
  const cell = make("td");
  cell.tick = (pull) => say(cell, written(secondsOld(pull)));
  cell.update = (pull) => {
    cell.title = `asked for at ${moment(pull.requested_at)}`;
    cell.tick(pull);
  };
  return cell;
}

function reasonCell() {
  const failure = failureWords();
  const cell = make("td", {}, failure);
  cell.update = (pull) => {
    failure.update(pull.failure);
    cell.title = pull.failure?.message ?? "";
  };
  return cell;
}

/** A failure's code and what it says. */
export function failureWords() {
  const code = make("code", { className: "code" });
  const message = make("span");
  const made = make("span", { className: "failure" }, code, " ", message);
  made.update = (failure) => {
    made.hidden = !failure;
    say(code, failure?.code ?? "");
    sayWithCode(message, failure?.message ?? "");
  };
  return made;
}

/** What fits on one line: what it waits for, or else how far it is. */
function briefCell() {
  const bar = meter("Progress");
  const words = make("span", { className: "words" });
  const cell = make("td", {}, make("span", { className: "line" }, bar, words));
  cell.update = (pull) => {
    const waits = waitsFor(pull);
    const said = waits || briefWords(pull);
    bar.hidden = waits !== "" || !pull.progress?.total;
    if (!bar.hidden) bar.update(pull.progress.done, pull.progress.total);
    say(words, said);
    words.classList.toggle("warn", waits !== "");
    cell.title = waits || progressWords(pull);
  };
  return cell;
}

function progressCell() {
  const bar = meter("Progress");
  const words = make("span", { className: "words" });
  const waits = make("span", { className: "waits" });
  const failure = failureWords();
  const layers = layersOnDemand();
  const cell = make("td", {}, make("span", { className: "line" }, bar, words), waits, failure, layers);
  cell.update = (pull) => {
    const said = progressWords(pull);
    const ended = pull.state === "FAILURE";
    bar.hidden = !said || ended;
    if (!bar.hidden) bar.update(pull.progress.done, pull.progress.total);
    bar.dataset.tone = pull.progress?.waiting ? "wait" : "work";
    say(words, ended ? "" : said);
    say(waits, waitsFor(pull));
    waits.title = waits.textContent;
    failure.update(ended ? pull.failure : null);
    layers.update(pull);
  };
  return cell;
}

/** A button that tells how many layers are there, and opens their list. */
function layersOnDemand() {
  const list = make("ul", { className: "layers", hidden: true });
  const button = make("button", { className: "plain small", type: "button", "aria-expanded": "false" });
  const made = make("span", { className: "layers-holder" }, button, list);
  let pull = null;
  const fill = () => { if (!list.hidden) fillLayers(list, pull.progress?.layers ?? []); };
  button.addEventListener("click", () => {
    list.hidden = !list.hidden;
    button.setAttribute("aria-expanded", String(!list.hidden));
    fill();
  });
  made.update = (told) => {
    pull = told;
    const all = pull.progress?.layers ?? [];
    made.hidden = all.length === 0;
    say(button, `${number(all.filter((layer) => layer.done >= layer.total).length)} of ${number(all.length)} layers`);
    fill();
  };
  return made;
}

/** The same layer may occur twice in an image: a place is its key. */
export function fillLayers(list, layers) {
  keyed(list, layers.map((layer, place) => ({ layer, place })), ({ place }) => place, () => {
    const digest = make("code");
    const bar = meter("Layer");
    const words = make("span", { className: "words" });
    const item = make("li", {}, digest, bar, words);
    item.update = ({ layer }) => {
      say(digest, layer.digest.replace(/^sha256:/, "").slice(0, 12));
      digest.title = layer.digest;
      bar.update(layer.done, layer.total);
      bar.dataset.tone = layer.done >= layer.total ? "good" : "work";
      say(words, layer.cached ? `${bytes(layer.total)}, was here already` : `${bytes(layer.done)} of ${bytes(layer.total)}`);
    };
    return item;
  });
}
