// A job's grid, kept true by its stream, or by asking where no stream gets through.

import { get } from "../api.js";
import { Stream } from "../stream.js";

const POLL_MS = 3000;
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
  #released = false;
  #closed = false;

  constructor(jobId, to) {
    this.#path = `/jobs/${encodeURIComponent(jobId)}`;
    this.#to = to;
    this.#stream = new Stream(`/api/v1${this.#path}/events`, (event) => this.#heard(event), (word, detail) => this.#stands(word, detail));
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#stream.close();
  }

  #heard({ event, data }) {
    if (event === "job") this.#released = data.job.released_at !== null;
    if (event === "grid" || event === "change" || event === "job") this.#to[event](data);
  }

  #stands(word, detail) {
    if (word === "open") {
      this.#lost = 0;
      clearTimeout(this.#timer);
      this.#timer = null;
      this.#to.stands("live", null);
    } else if (word === "ended" || (word === "lost" && this.#released)) {
      this.close();
      this.#to.stands("ended", null);
    } else if (word === "refused" && detail.status < 500 && detail.status !== 429) {
      this.close();
      this.#to.stands("failed", detail);
    } else {
      this.#lost += 1;
      if (this.#lost >= LOST_BEFORE_POLLING && this.#timer === null) this.#poll();
    }
  }

  async #poll() {
    try {
      const [grid, job] = await Promise.all([get(`${this.#path}/grid`), get(this.#path)]);
      if (this.#closed) return;
      this.#to.grid(grid);
      this.#to.job({ job, troubled: job.nodes.filter(({ state }) => state === "FAILED" || state === "LOST") });
      this.#to.stands("polling", null);
    } catch (problem) {
      if (!this.#closed) this.#to.stands("failed", problem);
    }
    if (!this.#closed) this.#timer = setTimeout(() => this.#poll(), POLL_MS);
  }
}
