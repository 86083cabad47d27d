// What the page knows, kept true by the live stream, or by asking where no stream gets through.
// Pages listen; they are told often enough for the eye, not for each of hundreds of events.

import { get } from "./api.js";
import { setClock } from "./format.js";
import { Stream } from "./stream.js";

const DRAW_MS = 200;
const POLL_MS = 3000;
// While nobody answers it is asked more often: who waits for a restart wants to see its end.
const KNOCK_MS = 1000;
const STALE_MS = 12000;
// So long a lost stream is a hiccup, and what is shown still holds.
const HICCUP_MS = 5000;
// An overview comes at least every 5 s: a stream that is open and says nothing is held by a proxy.
const SILENT_MS = 8000;
// Within this a lost stream is back, as after the hour that the gateway gives each: nothing to tell.
const UNNOTICED_MS = 2500;
// One lost stream is a restart or a hiccup; two in a row are asked around.
const LOST_BEFORE_POLLING = 2;

const isUnwelcome = (problem) => problem.status === 401 || problem.status === 403;

export class Store {
  pulls = new Map();
  overview = null;
  jobs = null;
  moreJobs = false;
  system = null;
  #listeners = new Set();
  #drawing = false;
  #drawnAt = -Infinity;
  #stream = null;
  #lost = 0;
  #lostAt = null;
  #polling = false;
  #timer = null;
  #startedAt = 0;
  #heardAt = null;
  #problem = "";
  #way = "connecting";
  #hasJobs = false;
  #onRefused;

  constructor(onRefused) {
    this.#onRefused = onRefused;
    setInterval(() => this.#tick(), 1000);
  }

  /** `{state, since, problem}`; state: connecting, live, polling, stale or (never heard) unreached. */
  get freshness() {
    const silent = Date.now() - (this.#heardAt ?? this.#startedAt);
    const lost = this.#lostAt !== null && Date.now() - this.#lostAt > UNNOTICED_MS;
    const way = this.#way === "live" && lost ? "connecting" : this.#way;
    const stale = this.#problem && way !== "live" ? silent > HICCUP_MS : silent > STALE_MS && this.#heardAt !== null;
    const state = this.#heardAt === null ? "unreached" : "stale";
    return { state: stale ? state : way, since: this.#heardAt, problem: this.#problem };
  }

  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Begin anew: another user, who may have jobs or not, or another system. */
  start(system, hasJobs) {
    this.clear();
    this.system = system;
    this.#hasJobs = hasJobs;
    this.#startedAt = Date.now();
    const query = system ? `?system=${encodeURIComponent(system)}` : "";
    this.#stream = new Stream(`/api/v1/live${query}`, (event) => this.#heard(event), (word, detail) => this.#stands(word, detail));
    this.#tell();
  }

  /** Forgets all that was told, and listens no more. */
  clear() {
    this.#stop();
    this.pulls = new Map();
    this.overview = this.jobs = this.#heardAt = this.#lostAt = null;
    this.moreJobs = false;
    this.#lost = 0;
    this.#way = "connecting";
    this.#problem = "";
  }

  /** Before anything was asked for, the gateway could not be reached. */
  unreached(problem) {
    this.#problem = problem.message;
    this.#tell();
  }

  #stop() {
    this.#stream?.close();
    this.#stream = null;
    this.#endPolling();
  }

  #endPolling() {
    clearTimeout(this.#timer);
    this.#polling = false;
  }

  #tick() {
    const silent = Date.now() - Math.max(this.#heardAt ?? 0, this.#startedAt);
    if (this.#stream !== null && !this.#polling && silent > SILENT_MS) {
      this.#stream.awake();
      this.#poll();
    }
    this.#tell();
  }

  #stands(word, detail) {
    // Open says little: what a proxy holds back is open too. It is live with its first event.
    if (word === "open") return;
    if (word === "refused" && isUnwelcome(detail)) {
      this.#refuse(detail);
    } else {
      // Refused for good, it does not come back by itself: such as by an older gateway's 404.
      this.#lost += word === "refused" ? LOST_BEFORE_POLLING : 1;
      this.#problem = detail.message ?? String(detail);
      this.#lostAt ??= Date.now();
      if (this.#lost >= LOST_BEFORE_POLLING && !this.#polling) this.#poll();
    }
    this.#tell();
  }

  #refuse(problem) {
    this.#stop();
    this.#way = "connecting";
    this.#problem = problem.message;
    this.#onRefused(problem);
  }

  #heard({ event, data }) {
    this.#heardAt = Date.now();
    this.#way = "live";
    this.#problem = "";
    this.#lost = 0;
    this.#lostAt = null;
    this.#endPolling();
    if (event === "snapshot") this.pulls = new Map(data.items.map((pull) => [pull.id, pull]));
    else if (event === "pull") this.pulls.set(data.id, data);
    else if (event === "gone") this.pulls.delete(data.id);
    else if (event === "overview") this.#overview(data);
    else if (event === "jobs") this.#jobs(data);
    this.#tell();
  }

  #overview(data) {
    this.overview = data;
    setClock(data.at);
  }

  #jobs({ items, next }) {
    this.jobs = items;
    this.moreJobs = next !== null;
  }

  /** Where a proxy swallows streams, or while the gateway is away. */
  async #poll() {
    const stream = this.#stream;
    const isOver = () => stream !== this.#stream || !this.#polling;
    let pause = POLL_MS;
    this.#polling = true;
    try {
      const query = { system: this.system };
      const overview = await get("/overview", query);
      // Without its catalog a gateway still says so, and no more.
      const isBlind = overview.worries.some(({ code }) => code === "catalog_away");
      const [queue, jobs] = isBlind ? [] : await Promise.all([get("/queue", query), this.#hasJobs ? get("/jobs", { ...query, running: true, limit: 100 }) : null]);
      if (isOver()) return;
      this.#overview(overview);
      if (queue) this.pulls = new Map(queue.items.map((pull) => [pull.id, pull]));
      if (jobs) this.#jobs(jobs);
      stream.anew();
      // The gateway is back: the stream need not wait for its own next turn.
      if (this.#way !== "polling") stream.retry();
      this.#way = "polling";
      this.#problem = "";
      this.#heardAt = Date.now();
    } catch (problem) {
      if (isOver()) return;
      if (isUnwelcome(problem)) return this.#refuse(problem);
      this.#problem = problem.message;
      this.#way = "connecting";
      pause = KNOCK_MS * (1 + Math.random());
    }
    this.#tell();
    this.#timer = setTimeout(() => this.#poll(), pause);
  }

  #tell() {
    if (this.#drawing) return;
    this.#drawing = true;
    const draw = () => {
      this.#drawing = false;
      this.#drawnAt = performance.now();
      for (const listener of [...this.#listeners]) listener(this);
    };
    // A hidden tab draws seldom, and must be right when it is looked at again.
    const pause = document.hidden ? 1000 : Math.max(0, this.#drawnAt + DRAW_MS - performance.now());
    setTimeout(draw, pause);
  }
}
