// What the page knows, kept true by the live stream, or by asking where no stream gets through.
// Pages listen; they are told often enough for the eye, not for each of hundreds of events.

import { get } from "./api.js";
import { setClock } from "./format.js";
import { Stream } from "./stream.js";

const DRAW_MS = 200;
const POLL_MS = 3000;
const STALE_MS = 12000;
// So long a lost stream is a hiccup, and what is shown still holds.
const HICCUP_MS = 5000;
// An overview comes at least every 5 s: a stream that is open and says nothing is held by a proxy.
const SILENT_MS = 8000;
// One lost stream is a restart or a hiccup; two in a row are asked around.
const LOST_BEFORE_POLLING = 2;

const isUnwelcome = (problem) => problem.status === 401 || problem.status === 403;

export class Store {
  pulls = new Map();
  overview = null;
  jobs = null;
  system = null;
  #listeners = new Set();
  #drawing = false;
  #drawnAt = -Infinity;
  #stream = null;
  #lost = 0;
  #polling = false;
  #timer = null;
  #startedAt = 0;
  #heardAt = null;
  #problem = "";
  #way = "connecting";
  #onRefused;

  constructor(onRefused) {
    this.#onRefused = onRefused;
    setInterval(() => this.#tick(), 1000);
    addEventListener("online", () => this.#stream?.retry());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.#stream?.retry(); });
  }

  /** `{state, since, problem}`; state: connecting, live, polling, stale or (never heard) unreached. */
  get freshness() {
    const silent = this.#heardAt === null ? Infinity : Date.now() - this.#heardAt;
    const stale = this.#problem && this.#way !== "live" ? silent > HICCUP_MS : silent > STALE_MS && this.#heardAt !== null;
    const state = this.#heardAt === null ? "unreached" : "stale";
    return { state: stale ? state : this.#way, since: this.#heardAt, problem: this.#problem };
  }

  listen(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Begin anew: another user, another system. */
  start(system) {
    this.clear();
    this.system = system;
    this.#startedAt = Date.now();
    const query = system ? `?system=${encodeURIComponent(system)}` : "";
    this.#stream = new Stream(`/api/v1/live${query}`, (event) => this.#heard(event), (word, detail) => this.#stands(word, detail));
    this.#tell();
  }

  /** Forgets all that was told, and listens no more. */
  clear() {
    this.#stop();
    this.pulls = new Map();
    this.overview = this.jobs = this.#heardAt = null;
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
    if (this.#stream !== null && !this.#polling && silent > SILENT_MS) this.#poll();
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
      if (this.#way === "live") this.#way = "connecting";
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
    this.#endPolling();
    if (event === "snapshot") this.pulls = new Map(data.items.map((pull) => [pull.id, pull]));
    else if (event === "pull") this.pulls.set(data.id, data);
    else if (event === "gone") this.pulls.delete(data.id);
    else if (event === "overview") this.#overview(data);
    else if (event === "jobs") this.jobs = data.items;
    this.#tell();
  }

  #overview(data) {
    this.overview = data;
    setClock(data.at);
  }

  /** Where a proxy swallows streams, or while the gateway is away. */
  async #poll() {
    const stream = this.#stream;
    const isOver = () => stream !== this.#stream || !this.#polling;
    this.#polling = true;
    try {
      const query = { system: this.system };
      const [overview, queue] = await Promise.all([get("/overview", query), get("/queue", query)]);
      const jobs = overview.jobs === null ? null : (await get("/jobs", { ...query, running: true, limit: 100 })).items;
      if (isOver()) return;
      this.#overview(overview);
      this.pulls = new Map(queue.items.map((pull) => [pull.id, pull]));
      this.jobs = jobs;
      stream.anew();
      this.#way = "polling";
      this.#problem = "";
      this.#heardAt = Date.now();
    } catch (problem) {
      if (isOver()) return;
      if (isUnwelcome(problem)) return this.#refuse(problem);
      this.#problem = problem.message;
      this.#way = "connecting";
    }
    this.#tell();
    this.#timer = setTimeout(() => this.#poll(), POLL_MS);
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
