// Jobs know images by id; people know them by reference. Those that were used last are known here.

import { get } from "../api.js";
import { make } from "../dom.js";
import { shortReference } from "../format.js";

const FRESH_MS = 60000;
const MOST = 200;
const SHOWN = 12;
// Asked for one by one, where they were used longer ago.
const MOST_SINGLE = 8;
// A page may stay open for weeks.
const MOST_KEPT = 2000;

export class ImageNames {
  #rows = new Map();
  #askedAt = -Infinity;

  /** Asks again where an id is not known, but not each second. */
  async learn(ids) {
    if (ids.every((id) => this.#rows.has(id)) || performance.now() - this.#askedAt < FRESH_MS) return false;
    this.#askedAt = performance.now();
    if (this.#rows.size > MOST_KEPT) this.#rows.clear();
    const { items } = await get("/images/table", { sort: "used", order: "desc", limit: MOST });
    for (const row of items) this.#rows.set(row.id, row);
    const unknown = [...new Set(ids)].filter((id) => !this.#rows.has(id)).slice(0, MOST_SINGLE);
    const found = await Promise.all(unknown.map((q) => get("/images/table", { q, limit: 1 })));
    for (const row of found.flatMap((page) => page.items)) this.#rows.set(row.id, row);
    return true;
  }

  /** A link to the image, or as much of its id as tells it apart. */
  show(id) {
    const row = this.#rows.get(id);
    if (!row) return make("span", { className: "mono", title: id }, id.slice(0, SHOWN));
    return make("a", { className: "mono", href: imageAddress(row), title: `${row.reference}\n${id}` }, shortReference(row.reference));
  }

  key(id) { return this.#rows.get(id)?.reference ?? id; }
}

export function imageAddress({ system, type, reference }) {
  return `#/images/${[system, type, ...reference.split("/")].map(encodeURIComponent).join("/")}`;
}
