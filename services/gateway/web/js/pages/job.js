// One job: its nodes as a grid, those in trouble, and its way to the first rank.

import { get } from "../api.js";
import { make, say, section } from "../dom.js";
import { ago, duration, moment, number, secondsSince, until } from "../format.js";
import { repeatedly } from "../parts/asking.js";
import { STAGING } from "../parts/cells.js";
import { copyButton, factList, refusal } from "../parts/facts.js";
import { nodeGrid } from "../parts/grid.js";
import { expand, fold } from "../parts/hostlist.js";
import { jobLine } from "../parts/jobline.js";
import { having, standing } from "../parts/jobstate.js";
import { JobStream } from "../parts/jobstream.js";
import { ImageNames } from "../parts/names.js";
import { Stagings } from "../parts/stagings.js";
import { troubleTable } from "../parts/troubles.js";

const TIMELINE_MS = 3000;
const WORDS = { S: "STAGED", I: "IN_PLACE", P: "PENDING", F: "FAILED", L: "LOST", R: "RELEASED" };

/** The numbers on top. */
function head(holder, jobId) {
  const state = make("span", { className: "state" });
  const facts = factList();
  const images = make("span", { className: "stack-names" });
  const names = new ImageNames();
  holder.append(make("div", { className: "title" }, make("h1", {}, "Job ", make("span", { className: "mono" }, jobId)), state), make("section", { "aria-label": "Job" }, facts));
  return (job) => {
    const { word, tone } = standing(job);
    say(state, word);
    state.dataset.tone = tone;
    const show = () => images.replaceChildren(...job.images.map((id) => names.show(id)));
    if (images.childElementCount !== job.images.length) show();
    names.learn(job.images).then((learnt) => learnt && show()).catch(() => { /* ids tell them apart as well */ });
    facts.set({
      "Nodes": job.node_count ? number(job.node_count) : "none yet",
      "Have the images": job.node_count ? number(having(job)) : null,
      "Images": images,
      "User": job.uid === null ? "not told" : `uid ${job.uid}`,
      "System": job.system,
      "Announced": ago(job.announced_at),
      "Announced by": job.announced_by,
      "Reservation": job.reserved_until ? `ends ${until(job.reserved_until)}` : null,
      "Released": job.released_at ? moment(job.released_at) : null,
      "Ran for": job.released_at ? duration(secondsSince(job.announced_at) - secondsSince(job.released_at)) : null,
    });
  };
}

/** Which nodes are in which state, as text that can be taken along. */
function lists(grid) {
  const body = make("div", { className: "hostlists" });
  const details = make("details", {}, make("summary", {}, "Hostlists of each state"), body);
  const fill = () => {
    if (!details.open) return;
    const scrolled = body.scrollTop;
    body.replaceChildren(...STAGING.filter(({ letter }) => grid.count(letter)).map(({ letter, name, tone }) => {
      const text = fold(grid.named(letter));
      return make("div", {}, make("span", { className: "state", dataset: { tone } }, `${number(grid.count(letter))} ${name}`),
        make("code", { className: "break", tabIndex: 0, "aria-label": `Hostlist of nodes ${name}` }, text), copyButton(`Copy the hostlist of nodes ${name}`, () => text));
    }));
    body.scrollTop = scrolled;
  };
  details.addEventListener("toggle", fill);
  return { details, fill };
}

export const job = {
  name: "job",
  title: "Job",
  path: "/jobs/:id",
  inMenu: false,
  under: "jobs",
  open(holder, { parameters }) {
    const jobId = parameters.id;
    const stagings = new Stagings(jobId);
    const showHead = head(holder, jobId);
    const pinned = make("p", { className: "pinned quiet", role: "status" }, "Click a node, or go to it with the arrow keys and press Enter, for what is known of it.");
    const told = make("p", { className: "empty" }, "Asking…");
    const nodes = section("Nodes", told);
    const grid = nodeGrid(nodes, { label: "Nodes of this job", kinds: STAGING, onPick: pick });
    const hostlists = lists(grid);
    nodes.append(pinned, hostlists.details);
    const troubles = troubleTable();
    const trouble = section("In trouble", troubles);
    const way = section("From the announcement to the first rank");
    const line = jobLine(way);
    const wayTold = make("p", { className: "empty" }, "Asking…");
    way.append(wayTold);
    grid.element.hidden = pinned.hidden = hostlists.details.hidden = trouble.hidden = way.hidden = true;
    holder.append(nodes, trouble, way);
    let latest = null, listsAt = 0, isWayTold = false;

    async function pick(name) {
      const letter = grid.letterOf(name);
      pinned.classList.remove("quiet");
      say(pinned, `${name} · ${grid.nameOf(letter)} · asking…`);
      const words = [name, grid.nameOf(letter)];
      try {
        const found = await stagings.find(name, WORDS[letter]);
        if (found?.seconds !== null && found?.seconds !== undefined) words.push(`${duration(found.seconds)} from being told to having them`);
        if (found?.failure) words.push(found.failure.message);
      } catch (problem) {
        words.push(refusal(problem));
      }
      say(pinned, words.join(" · "));
    }

    function listed() {
      // Made of all names: not with each of a hundred changes a second.
      if (performance.now() - listsAt < 1000) return;
      listsAt = performance.now();
      hostlists.fill();
    }

    const stream = new JobStream(jobId, {
      grid(view) {
        const empty = view.letters.length === 0;
        grid.element.hidden = pinned.hidden = hostlists.details.hidden = empty;
        told.hidden = !empty;
        say(told, "No nodes yet: the scheduler has reserved the images, and says later where the job runs.");
        if (!empty) grid.show(expand(view.hostlist), view.letters);
        listed();
      },
      change({ at, letters }) {
        grid.change(at, letters);
        listed();
      },
      job(view) {
        if (latest === null) setTimeout(() => timeline.now());
        latest = view.job;
        showHead(view.job);
        stagings.learn(view.troubled);
        troubles.update(view.troubled);
        const all = (view.job.counts.FAILED ?? 0) + (view.job.counts.LOST ?? 0);
        trouble.hidden = view.troubled.length === 0;
        say(trouble.beside, all > view.troubled.length ? `the first ${number(view.troubled.length)} of ${number(all)}` : "");
        way.hidden = view.job.node_count === 0;
      },
      stands(word, problem) {
        say(nodes.beside, word === "polling" ? "asked for every 3 s" : word === "ended" ? "the job has ended" : "");
        if (word !== "failed") return;
        if (latest === null) {
          told.hidden = false;
          say(told, refusal(problem));
        } else say(nodes.beside, `as of a while ago: ${problem.message}`);
      },
    });
    const timeline = repeatedly(async () => {
      if (latest === null || latest.node_count === 0 || isWayTold) return;
      const view = await get(`/jobs/${encodeURIComponent(jobId)}/timeline`);
      wayTold.hidden = true;
      line.update(view, latest.node_count);
      isWayTold = view.marks.some(({ moment: name }) => name === "released");
    }, TIMELINE_MS, (problem) => { wayTold.hidden = false; say(wayTold, refusal(problem)); });
    return {
      update({ jobs }) {
        if (latest) showHead(latest);
        // Schedulers count anew one day: the same number, another job.
        const isAnother = (each) => each.job_id === jobId && each.announced_at !== latest.announced_at;
        if (!stream.ended || !latest || !jobs?.some(isAnother)) return;
        latest = null;
        isWayTold = false;
        stream.again();
      },
      close() {
        stream.close();
        timeline.close();
        grid.close();
        line.close();
      },
    };
  },
};
