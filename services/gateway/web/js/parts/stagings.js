// What is known of one node of a job. The gateway tells nodes by name in pages; those that were
// read are kept, and read again where the grid says otherwise by now.

import { get } from "../api.js";

const MOST_PAGES = 100;

export class Stagings {
  #path;
  #known = new Map();
  #after = null;
  #ended = false;

  constructor(jobId) {
    this.#path = `/jobs/${encodeURIComponent(jobId)}`;
  }

  /** Those that the stream told anyway. */
  learn(nodes) {
    for (const each of nodes) this.#known.set(each.node, each);
  }

  /** The staging of a node whose state is `state` now; null where it is not found. */
  async find(node, state) {
    if (this.#known.get(node)?.state === state) return this.#known.get(node);
    if (this.#known.has(node) || this.#ended) {
      this.#known.clear();
      this.#after = null;
      this.#ended = false;
    }
    for (let page = 0; page < MOST_PAGES && !this.#ended && !this.#known.has(node); page += 1) {
      const view = await get(this.#path, { nodes: "all", after: this.#after });
      this.learn(view.nodes);
      this.#after = view.next;
      this.#ended = view.next === null;
    }
    return this.#known.get(node) ?? null;
  }
}
