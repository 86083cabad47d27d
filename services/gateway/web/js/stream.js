// Server-sent events by fetch, since an EventSource cannot say who asks. It comes back by itself,
// goes on from the last id, and tells how it stands.

import { headers, refusalOf } from "./api.js";

// The gateway says something at least every 15 s.
const SILENCE_MS = 25000;
const SILENT = new Error("nothing was heard for a while");
const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15000;

/** Cuts a text that comes in pieces into events: `{id, event, data}`. */
export class Events {
  #rest = "";

  *cut(piece) {
    this.#rest += piece;
    const blocks = this.#rest.split("\n\n");
    this.#rest = blocks.pop();
    for (const block of blocks) {
      const event = { event: "message", data: "" };
      for (const line of block.split("\n")) {
        const colon = line.indexOf(":");
        if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
      }
      if (event.data) yield event;
    }
  }
}

/**
 * Follows a stream until `close()`. `heard(event)` gets each event with its data as JSON;
 * `state(word, detail)` one of open, lost, refused, ended.
 */
export class Stream {
  #path;
  #heard;
  #state;
  #last = null;
  #pause = FIRST_PAUSE_MS;
  #abort = null;
  #timer = null;
  #closed = false;
  #saidAt = Date.now();
  #shown = () => { if (!document.hidden) this.awake(); };

  constructor(path, heard, state) {
    this.#path = path;
    this.#heard = heard;
    this.#state = state;
    addEventListener("online", this.#shown);
    document.addEventListener("visibilitychange", this.#shown);
    this.#run();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#abort?.abort();
    removeEventListener("online", this.#shown);
    document.removeEventListener("visibilitychange", this.#shown);
  }

  /** Perhaps this machine has slept: what it was connected to may be gone, and nobody has told it. */
  awake() {
    if (Date.now() - this.#saidAt > SILENCE_MS) this.#abort?.abort(SILENT);
    this.retry();
  }

  /** Now, rather than after the pause. */
  retry() {
    if (this.#timer === null || this.#closed) return;
    this.#pause = FIRST_PAUSE_MS;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#run();
  }

  /** What is known did not come by this stream alone: it has to tell all of it again. */
  anew() {
    this.#last = null;
  }

  async #run() {
    let pause = null;
    try {
      const ended = await this.#follow();
      if (this.#closed) return;
      if (ended) return this.#state("ended", "");
      this.#state("lost", "the gateway ended the stream");
    } catch (problem) {
      if (this.#closed) return;
      const refused = problem.status !== undefined;
      this.#state(refused ? "refused" : "lost", problem);
      if (refused && problem.status < 500 && problem.status !== 429) return;
      pause = problem.retryAfter ? problem.retryAfter * 1000 : null;
    }
    // Whoever was told may have closed it.
    if (this.#closed) return;
    // Many pages that lost one gateway must not come back in the same moment.
    const wait = pause ?? this.#pause * (0.5 + Math.random() / 2);
    this.#pause = Math.min(LONGEST_PAUSE_MS, this.#pause * 2);
    this.#timer = setTimeout(() => { this.#timer = null; this.#run(); }, wait);
  }

  async #follow() {
    const abort = (this.#abort = new AbortController());
    let silence = null;
    const awake = () => {
      this.#saidAt = Date.now();
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(SILENT), SILENCE_MS);
    };
    awake();
    try {
      const resume = this.#last === null ? {} : { "Last-Event-ID": this.#last };
      const response = await fetch(this.#path, {
        headers: { ...headers(), ...resume, Accept: "text/event-stream" },
        cache: "no-store",
        signal: abort.signal,
      });
      if (response.status === 204) return true;
      if (!response.ok) throw await refusalOf(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const events = new Events();
      this.#state("open", "");
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return false;
        awake();
        this.#pause = FIRST_PAUSE_MS;
        for (const event of events.cut(value)) {
          this.#heard({ ...event, data: JSON.parse(event.data) });
          if (event.id !== undefined) this.#last = event.id;
        }
      }
    } finally {
      clearTimeout(silence);
    }
  }
}
