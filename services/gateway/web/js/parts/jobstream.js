// A job's grid, kept true by its stream, or by asking where no stream gets through.

import { get } from "../api.js";
import { Stream } from "../stream.js";

const POLL_MS = 3000;
// Its first event comes at once: a stream that is open and brings none is held by a proxy.
const FIRST_EVENT_MS = 5000;
const LOST_BEFORE_POLLING = 2;

/**
 * Follows a job until `close()`: `grid(JobGrid)`, `change(JobGridChange)`, `job(JobLive)`, and
 * `stands(word, problem)` with one of live, polling, ended, failed.
 */
export class JobStream {
  #path;
  #to;
  #stream;
  #lost = 0;
  #timer = null;
  #turn = 0;
  #polling = false;
  #held = null;
  #released = false;
  #closed = false;

  constructor(jobId, to) {
    this.#path = `/jobs/${encodeURIComponent(jobId)}`;
    this.#to = to;
    this.again();
  }

  /** Follows it from the start: also one that has ended, where its number is a new job's by now. */
  again() {
    this.close();
    this.#closed = this.#released = false;
    this.#lost = 0;
    this.#stream = new Stream(`/api/v1${this.#path}/events`, (event) => this.#heard(event), (word, detail) => this.#stands(word, detail));
  }

  get ended() { return this.#closed; }

  close() {
    this.#closed = true;
    clearTimeout(this.#held);
    this.#endPolling();
    this.#stream?.close();
  }

  #endPolling() {
    this.#turn += 1;
    this.#polling = false;
    clearTimeout(this.#timer);
  }

  #heard({ event, data }) {
    clearTimeout(this.#held);
    this.#lost = 0;
    this.#endPolling();
    this.#to.stands("live", null);
    if (event === "job") this.#released = data.job.released_at !== null;
    if (event === "grid" || event === "change" || event === "job") this.#to[event](data);
  }

  #stands(word, detail) {
    if (word === "open") {
      clearTimeout(this.#held);
      this.#held = setTimeout(() => { if (!this.#polling) this.#poll(); }, FIRST_EVENT_MS);
    } else if (word === "ended" || (word === "lost" && this.#released)) {
      this.close();
      this.#to.stands("ended", null);
    } else if (word === "refused" && detail.status < 500 && detail.status !== 429) {
      this.close();
      this.#to.stands("failed", detail);
    } else {
      this.#lost += 1;
      clearTimeout(this.#held);
      if (this.#lost >= LOST_BEFORE_POLLING && !this.#polling) this.#poll();
    }
  }

  async #poll() {
    const turn = (this.#turn += 1);
    const isOver = () => turn !== this.#turn;
    this.#polling = true;
    try {
      const [grid, job] = await Promise.all([get(`${this.#path}/grid`), get(this.#path)]);
      if (isOver()) return;
      this.#to.grid(grid);
      this.#to.job({ job, troubled: job.nodes.filter(({ state }) => state === "FAILED" || state === "LOST") });
      this.#to.stands("polling", null);
    } catch (problem) {
      if (!isOver()) this.#to.stands("failed", problem);
    }
    if (!isOver()) this.#timer = setTimeout(() => this.#poll(), POLL_MS);
  }
}
