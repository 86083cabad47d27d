// Is anybody waiting, and why? The page for the wall.

import { keyed, make, say, sayWithCode, section, table } from "../dom.js";
import { age, number, secondsSince } from "../format.js";
import { stackedBar } from "../parts/bars.js";
import { flow } from "../parts/flow.js";
import { nodesBar, standing } from "../parts/jobstate.js";
import { isUnderWay, SORTS } from "../parts/pull-facts.js";
import { COLUMNS, pullRow } from "../parts/pull-row.js";
import { lastHour, recentCharts } from "../parts/recent.js";
import { pathOfWorry, verdict } from "../parts/verdict.js";
import { isAdmin } from "../session.js";

const MOST = { pulls: 6, failures: 4, jobs: 5 };
const PULL_COLUMNS = ["image", "state", "brief", "roughAge", "user"];
const FAILURE_COLUMNS = ["image", "reason", "roughAge"];

export const overview = {
  name: "overview",
  title: "Overview",
  path: "/",
  inMenu: true,
  open(holder, { who }) {
    const admin = isAdmin(who);
    const sentence = make("p", { className: "verdict" });
    // Read out only when it becomes better or worse, not with every figure.
    const told = make("p", { className: "hidden", role: "status" });
    const worries = make("ul", { className: "worries" });
    const stations = flow();
    const pipeline = section("Pipeline", stations);
    const pulls = pullsPart("Pulls under way", "#/pulls", PULL_COLUMNS, MOST.pulls,
      [make("p", {}, "No pull is under way. This begins one:"), make("pre", {}, "dray pull debian:12")]);
    const failures = pullsPart("Failures", "#/pulls?state=FAILURE", FAILURE_COLUMNS, MOST.failures,
      [make("p", {}, "No pull failed lately.")]);
    const jobs = who.via === "nobody" ? null : jobsPart();
    const recent = admin ? section("Last hours") : null;
    let ready = null;
    const charts = recent && recentCharts(recent, (view) => { ready = lastHour(view, "pulls_ready_total"); });
    holder.append(
      make("header", { className: "lead" }, make("h1", { className: "hidden" }, "Overview"), sentence, told, worries),
      pipeline,
      make("div", { className: "halves" },
        make("div", { className: "half" }, pulls, failures), jobs && make("div", { className: "half" }, jobs), recent),
    );
    return {
      update(store) {
        drawVerdict({ sentence, told, worries }, store, admin);
        pipeline.hidden = !store.overview;
        if (store.overview) stations.update(store.overview, ready);
        const all = [...store.pulls.values()];
        pulls.update(all.filter(isUnderWay).sort(SORTS.oldest.compare));
        failures.update(all.filter(({ state }) => state === "FAILURE").sort((one, other) => Date.parse(other.updated_at) - Date.parse(one.updated_at)));
        jobs?.update(store.jobs ?? []);
      },
      close() { charts?.close(); },
    };
  },
};

function drawVerdict({ sentence, told, worries }, { overview: now }, admin) {
  const { tone, text } = now ? verdict(now) : { tone: "wait", text: "Asking the gateway…" };
  say(sentence, text);
  if (told.dataset.tone !== tone && now) say(told, text);
  sentence.dataset.tone = told.dataset.tone = tone;
  const items = (now?.worries ?? []).map((worry, place) => ({ worry, key: `${worry.code} ${worry.level} ${place}` }));
  keyed(worries, items, ({ key }) => key, ({ worry }) => {
    const message = make("span");
    const path = pathOfWorry(worry, admin);
    const item = make("li", { dataset: { tone: worry.level === "critical" ? "bad" : "warn" } },
      make("b", { className: "level" }, worry.level), message,
      make("code", { className: "quiet", title: "its name in the runbooks" }, worry.code),
      path && make("a", { href: path, "aria-label": `Look into it: ${worry.code.replaceAll("_", " ")}` }, "Look into it"));
    item.update = ({ worry: known }) => sayWithCode(message, known.message);
    return item;
  });
  worries.hidden = items.length === 0;
}

/** A section whose heading leads to the whole of it, and that says how much is not shown. */
function part(title, path, body, empty, most) {
  const more = make("a", { href: path });
  const none = make("div", { className: "empty" }, ...empty);
  const made = section(title, body, none);
  made.beside.append(more);
  made.shown = (items) => {
    body.hidden = items.length === 0;
    none.hidden = items.length > 0;
    say(more, items.length > most ? `all ${number(items.length)}` : "all");
    more.setAttribute("aria-label", `${more.textContent}: ${title}`);
    return items.slice(0, most);
  };
  return made;
}

function pullsPart(title, path, columns, most, empty) {
  const rows = table(title, columns.map((name) => COLUMNS[name]));
  rows.classList.add("pulls", "compact");
  const made = part(title, path, rows, empty, most);
  made.update = (items) => keyed(rows.body, made.shown(items), ({ id }) => id, () => pullRow(columns));
  return made;
}

function jobsPart() {
  const list = make("ul", { className: "jobs-now" });
  const made = part("Running jobs", "#/jobs", list,
    [make("p", {}, "No job with images is running. A job is shown once the scheduler has announced it.")], MOST.jobs);
  const trouble = ({ counts }) => (counts.FAILED ?? 0) + (counts.LOST ?? 0);
  const pending = ({ counts }) => counts.PENDING ?? 0;
  made.update = (jobs) => {
    // Those with trouble first, then those that somebody waits for.
    const sorted = [...jobs].sort((one, other) => (trouble(other) > 0) - (trouble(one) > 0)
      || (pending(other) > 0) - (pending(one) > 0) || Date.parse(other.announced_at) - Date.parse(one.announced_at));
    keyed(list, made.shown(sorted), ({ system, job_id: id }) => `${system} ${id}`, jobRow);
  };
  return made;
}

function jobRow({ job_id: id }) {
  const name = make("a", { className: "mono", href: `#/jobs/${encodeURIComponent(id)}` }, id);
  const word = make("span", { className: "state" });
  const nodes = make("span", { className: "num quiet" });
  const since = make("span", { className: "num quiet" });
  const words = make("span", { className: "words quiet" });
  const bar = stackedBar();
  const item = make("li", {}, name, word, words, nodes, since, bar);
  item.update = (job) => {
    const { word: said, tone } = standing(job);
    say(word, said);
    word.dataset.tone = tone;
    say(nodes, job.node_count === 1 ? "1 node" : `${number(job.node_count)} nodes`);
    say(since, age(secondsSince(job.announced_at)));
    const { words: told, pieces } = nodesBar(job);
    bar.update(pieces, told);
    bar.hidden = pieces.length === 0;
    say(words, told);
  };
  return item;
}
