// One pull, and what happened to it when: watched from INIT to READY without a reload.

import { get } from "../api.js";
import { make, say, section } from "../dom.js";
import { age, asArgument, bytes, moment, number, percent, secondsSince, shortReference } from "../format.js";
import { factList, refusal } from "../parts/facts.js";
import { imageAddress } from "../parts/names.js";
import { isUnderWay, progressWords, waitsFor } from "../parts/pull-facts.js";
import { failureWords, fillLayers } from "../parts/pull-row.js";
import { meter, stateChip } from "../parts/state.js";
import { timeLine } from "../parts/steps.js";
import { Stream } from "../stream.js";

const AGAIN_MS = 3000;

export const pull = {
  name: "pull",
  title: "Pull",
  path: "/pulls/:id",
  inMenu: false,
  under: "pulls",
  open(holder, { parameters: { id } }) {
    const shown = drawn(holder);
    let known = null;
    let stream = null;
    let timer = null;
    let closed = false;
    let inQueue = false;
    const show = (told) => {
      known = told;
      shown.show(told);
      if (isUnderWay(told)) return;
      stream?.close();
      stream = null;
    };
    const again = () => {
      clearTimeout(timer);
      timer = setTimeout(ask, AGAIN_MS);
    };
    const follow = () => {
      stream?.close();
      stream = new Stream(`/api/v1/pulls/${encodeURIComponent(id)}/events`, ({ data }) => show(data),
        (word) => { if (word === "ended" || word === "refused") again(); });
    };
    const ask = async () => {
      try {
        const told = await get(`/pulls/${encodeURIComponent(id)}`);
        if (closed) return;
        show(told);
        if (isUnderWay(told)) follow();
      } catch (problem) {
        if (closed) return;
        shown.missing(problem, known);
        if (problem.status === undefined || problem.status >= 500) again();
      }
    };
    ask();
    return {
      update({ pulls }) {
        if (known === null) return;
        // What the queue tells holds too: it is all there is where streams do not get through.
        const told = pulls.get(id);
        if (told && Date.parse(told.updated_at) > Date.parse(known.updated_at)) show(told);
        else if (!told && inQueue && isUnderWay(known)) ask();
        inQueue = told !== undefined;
        shown.tick(known);
      },
      close() {
        closed = true;
        clearTimeout(timer);
        stream?.close();
      },
    };
  },
};

/** The page's parts; `show(pull)` fills them, `tick(pull)` moves ages on. */
function drawn(holder) {
  const name = make("h1", { className: "mono break" }, "Pull");
  const state = stateChip();
  const problem = make("p", { className: "notice", role: "alert", hidden: true });
  const bar = meter("Progress");
  bar.classList.add("wide");
  const words = make("p", { className: "words" });
  const waits = make("p", { className: "waits" });
  const link = make("a", { className: "button" }, "Show the image");
  const failed = failurePart();
  const warning = make("p", { className: "warn", hidden: true });
  const facts = factList();
  const line = timeLine();
  const list = make("ul", { className: "layers" });
  const layers = section("Layers", list);
  const body = make("div", { className: "page", hidden: true },
    make("div", { className: "card now" }, make("p", { className: "line" }, state, bar, words, link), waits, failed, warning, facts),
    section("Time line", line), layers);
  holder.append(make("div", { className: "heading" }, make("p", { className: "crumb" }, make("a", { href: "#/pulls" }, "Pulls"), " ›"), name), problem, body);
  const tick = (pull) => {
    facts.set({
      Age: isUnderWay(pull) ? age(secondsSince(pull.requested_at)) : null,
      "Asked for": moment(pull.requested_at),
      "Last change": moment(pull.updated_at),
    });
    line.update(pull.steps ?? []);
  };
  return {
    tick,
    show(pull) {
      problem.hidden = true;
      body.hidden = false;
      say(name, shortReference(pull.reference));
      name.title = pull.reference;
      state.update(pull.state);
      const said = isUnderWay(pull) ? progressWords(pull) : "";
      bar.hidden = words.hidden = !said;
      if (said) bar.update(pull.progress.done, pull.progress.total);
      say(words, said && `${percent(pull.progress.done, pull.progress.total)} · ${said}`);
      say(waits, waitsFor(pull));
      waits.hidden = !waits.textContent;
      link.hidden = pull.image === null;
      if (pull.image) link.href = imageAddress(pull.image);
      say(link, pull.state === "READY" ? "Show the image" : "Show the image of an earlier pull");
      failed.update(pull);
      warning.hidden = !pull.warning;
      say(warning, pull.warning ?? "");
      facts.set({
        System: pull.system,
        Type: pull.type === "docker" ? null : pull.type,
        User: pull.requested_by,
        "Who may see it": pull.private ? "its owner, and whom the owner names" : "everybody",
        Tries: number(pull.tries),
        Size: pull.image && pull.state === "READY" ? bytes(pull.image.size) : null,
      });
      const parts = pull.progress?.layers ?? [];
      layers.hidden = parts.length === 0;
      fillLayers(list, parts);
      tick(pull);
    },
    missing(told, known) {
      problem.hidden = false;
      say(problem, told.status === 404
        ? "This pull is gone: it ended a while ago, a newer pull took its place, or it is somebody else’s private image."
        : refusal(told));
      if (told.status !== undefined && told.status < 500) body.hidden = true;
      if (!known) say(name, "Pull");
    },
  };
}

function failurePart() {
  const words = failureWords();
  const command = make("pre");
  const made = make("div", { className: "notice bad-notice" }, make("p", {}, words),
    make("p", { className: "quiet" }, "When the cause is gone, ask for it again:"), command);
  made.update = (pull) => {
    made.hidden = pull.state !== "FAILURE";
    words.update(pull.failure);
    // What was imported comes from a file, which only its owner knows.
    say(command, pull.type === "custom" ? `dray import FILE ${asArgument(pull).replace("custom:", "")}` : `dray pull ${asArgument(pull)}`);
  };
  return made;
}
