// Jobs and how many of their nodes are ready: those that run, live, and older ones on demand.

import { get } from "../api.js";
import { keyed, make, say, section, table } from "../dom.js";
import { ago, duration, moment, number, secondsSince, until } from "../format.js";
import { stackedBar } from "../parts/bars.js";
import { named, refusal } from "../parts/facts.js";
import { having, nodesBar, standing } from "../parts/jobstate.js";
import { ImageNames } from "../parts/names.js";

const PAGE = 50;
const COLUMNS = [
  { title: "Job" }, { title: "State" }, { title: "User" }, { title: "Images" },
  { title: "Nodes", className: "num" }, { title: "Have the images", className: "wide" }, { title: "Age", className: "num", hint: "since it was announced" },
];

/** One job as a row, which stays as long as the job is shown. */
function row(names) {
  const link = make("a", { className: "mono" });
  const state = make("span", { className: "state" });
  const user = make("td"), images = make("td", { className: "stack-names" }), nodes = make("td", { className: "num" });
  const bar = stackedBar(), ready = make("span", { className: "quiet" }), age = make("td", { className: "num" });
  const made = make("tr", {}, make("th", { scope: "row" }, link), make("td", {}, state), user, images, nodes,
    make("td", {}, make("div", { className: "barred" }, bar, ready)), age);
  made.update = (job) => {
    say(link, job.job_id);
    link.href = `#/jobs/${encodeURIComponent(job.job_id)}`;
    const { word, tone } = standing(job);
    say(state, word);
    state.dataset.tone = tone;
    say(user, job.uid === null ? "–" : String(job.uid));
    user.title = `announced by ${job.announced_by}`;
    const key = job.images.map((id) => names.key(id)).join(" ");
    if (images.dataset.key !== key) {
      images.dataset.key = key;
      images.replaceChildren(...job.images.map((id) => names.show(id)));
    }
    say(nodes, job.node_count ? number(job.node_count) : "–");
    const { pieces, words } = nodesBar(job);
    bar.hidden = job.node_count === 0;
    bar.update(pieces, words);
    const held = job.reserved_until ? `images are held, ends ${until(job.reserved_until)}` : "waits for its nodes";
    say(ready, job.node_count === 0 ? held : job.released_at ? `ended ${ago(job.released_at)}` : number(having(job)));
    say(age, duration(secondsSince(job.announced_at)));
    age.title = `announced ${moment(job.announced_at)}`;
  };
  return named(made, COLUMNS);
}

export const jobs = {
  name: "jobs",
  title: "Jobs",
  path: "/jobs",
  inMenu: true,
  open(holder, { store, who }) {
    const names = new ImageNames();
    const running = table("Running jobs", COLUMNS), older = table("Older jobs", COLUMNS);
    const empty = make("p", { className: "empty" });
    const now = section("Running", empty, running);
    const more = make("button", { type: "button" }, "Show older jobs");
    const told = make("p", { className: "empty", role: "status" });
    const before = section("Older", told, older, more);
    const past = [];
    let after = null;
    older.hidden = true;
    holder.append(make("h1", {}, "Jobs"), now, before);
    const stranger = who.via === "nobody";
    before.hidden = stranger;

    more.addEventListener("click", async () => {
      more.disabled = true;
      try {
        // Those that run are shown above: pages are asked for until one has something else.
        const known = past.length;
        do {
          const page = await get("/jobs", { system: store.system, limit: PAGE, after });
          const shown = new Set((store.jobs ?? []).map(({ job_id: id }) => id));
          past.push(...page.items.filter((job) => job.released_at !== null || !shown.has(job.job_id)));
          after = page.next;
        } while (after !== null && past.length === known);
        say(told, past.length ? "" : "No job has ended lately.");
      } catch (problem) {
        say(told, refusal(problem));
      }
      told.hidden = told.textContent === "";
      more.disabled = false;
      say(more, "More");
      more.hidden = after === null && told.textContent === "" && past.length > 0;
      older.hidden = past.length === 0;
      update();
    });
    told.hidden = true;

    function update() {
      const shown = store.jobs ?? [];
      running.hidden = shown.length === 0;
      empty.hidden = shown.length > 0;
      const waiting = store.overview === null && store.jobs === null;
      say(empty, stranger ? "Sign in to see your jobs." : waiting ? "Asking…"
        : "No job runs with images now. A job is shown here once the scheduler has announced it, and says how many of its nodes have its images.");
      const all = store.overview?.jobs?.running ?? null;
      say(now.beside, store.moreJobs ? `the newest ${number(shown.length)}${all === null ? "" : ` of ${number(all)}`}` : shown.length ? `${number(shown.length)}` : "");
      keyed(running.body, shown, (job) => job.job_id, () => row(names));
      keyed(older.body, past, (job) => job.job_id, () => row(names));
      const ids = [...shown, ...past].flatMap((job) => job.images);
      names.learn(ids).then((learnt) => learnt && update()).catch(() => { /* ids tell them apart as well */ });
    }
    return { update };
  },
};
