// What is READY: size, what is shared, who used it and until when it stays.

import { get } from "../api.js";
import { keyed, make, say, sayWithCode, section, table } from "../dom.js";
import { ago, bytes, counted, moment, number, percent, secondsSince, shortReference, until } from "../format.js";
import { repeatedly } from "../parts/asking.js";
import { stackedBar } from "../parts/bars.js";
import { named, refusal } from "../parts/facts.js";
import { imageAddress } from "../parts/names.js";

const PAGE = 100;
const TYPING_MS = 250;
const AGAIN_MS = 60000;
// Whoever turned so many pages looks for something: the list stays as it is then.
const MOST_AGAIN = 5 * PAGE;
const SOON_SECONDS = 2 * 86400;
const COLUMNS = [
  { title: "Image", sort: "name", first: "asc" }, { title: "System" },
  { title: "Size", className: "num", sort: "size", first: "desc" },
  { title: "Shared", className: "num", sort: "shared", first: "desc", hint: "bytes that other images have as well" },
  { title: "", className: "wide" },
  { title: "Users", className: "num" },
  { title: "Used", className: "num", sort: "used", first: "desc" },
  { title: "Ready", className: "num", sort: "ready", first: "desc" },
  { title: "Expires", className: "num", sort: "expires", first: "asc" },
];

function row() {
  const link = make("a", { className: "mono" }), tags = make("span", { className: "tags" });
  const bar = stackedBar();
  const num = () => make("td", { className: "num" });
  const system = make("td"), size = num(), shared = num(), users = num(), used = num(), ready = num(), expires = num();
  const made = make("tr", {}, make("th", { scope: "row", className: "break" }, link, tags), system, size, shared, make("td", {}, bar), users, used, ready, expires);
  made.update = (image) => {
    say(link, shortReference(image.reference));
    link.href = imageAddress(image);
    link.title = `${image.reference}\n${image.id}`;
    const words = [image.type === "custom" && "imported", image.private && (image.owner === null ? "private" : `private, of uid ${image.owner}`), image.pinned && "pinned"].filter(Boolean);
    say(tags, words.join(" · "));
    say(system, image.system);
    say(size, bytes(image.size));
    const known = image.shared_bytes !== null;
    say(shared, known ? `${bytes(image.shared_bytes)}` : "–");
    bar.hidden = !known;
    bar.update([
      { key: "own", part: image.size - (image.shared_bytes ?? 0), tone: "work", title: "its own" },
      { key: "shared", part: image.shared_bytes ?? 0, tone: "good", title: "shared", hatched: true },
    ], `${percent(image.shared_bytes, image.size)} of it is shared with other images`);
    say(users, number(image.users));
    for (const [cell, time] of [[used, image.last_used], [ready, image.ready_at]]) {
      say(cell, ago(time));
      cell.title = moment(time);
    }
    const soon = image.expires_at !== null && !image.pinned && secondsSince(image.expires_at) > -SOON_SECONDS;
    say(expires, image.pinned ? "never" : image.expires_at === null ? "–" : until(image.expires_at));
    expires.title = image.pinned ? "pinned" : moment(image.expires_at);
    expires.classList.toggle("warn", soon);
  };
  return named(made, COLUMNS);
}

/** Headers that sort when they are pressed. */
function sorting(made, order, changed) {
  const heads = [...made.querySelectorAll("thead th")];
  const tell = () => heads.forEach((head, n) => {
    const { sort } = COLUMNS[n];
    if (!sort) return;
    head.setAttribute("aria-sort", sort !== order.sort ? "none" : order.order === "asc" ? "ascending" : "descending");
  });
  heads.forEach((head, n) => {
    const { title, sort, first } = COLUMNS[n];
    if (!sort) return;
    head.replaceChildren(make("button", { type: "button", className: "sorter", onclick: () => {
      const turned = order.order === "asc" ? "desc" : "asc";
      order.order = order.sort === sort ? turned : first;
      order.sort = sort;
      tell();
      changed();
    } }, title));
  });
  tell();
}

export const images = {
  name: "images",
  title: "Images",
  path: "/images",
  inMenu: true,
  open(holder, { store }) {
    const order = { sort: "size", order: "desc" };
    const search = make("input", { type: "search", placeholder: "part of a reference, or an id", autocomplete: "off" });
    search.spellcheck = false;
    const told = make("p", { className: "empty", role: "status" }, "Asking…");
    const made = table("Images that are ready", COLUMNS);
    const more = make("button", { type: "button", hidden: true }, "More");
    const ready = section("Ready", make("div", { className: "controls" }, make("label", { className: "grow" }, "Search ", search)), told, made, more);
    holder.append(make("h1", {}, "Images"), ready);
    made.hidden = true;
    let items = [], after = null, asked = 0, typing = null;

    function draw() {
      keyed(made.body, items, ({ system, type, reference, id, owner }) => `${system}/${type}/${reference} ${id} ${owner}`, row);
    }

    /** The page that begins at `next`, and as many more as it takes to have `least` images. */
    async function ask(next, least = 0) {
      const turn = (asked += 1);
      try {
        const found = next === null ? [] : [...items];
        let page = { next };
        do {
          page = await get("/images/table", { ...order, system: store.system, q: search.value.trim(), limit: PAGE, after: page.next });
          if (turn !== asked) return;
          found.push(...page.items);
        } while (page.next !== null && found.length < least);
        items = found;
        after = page.next;
        say(ready.beside, `${counted(page.total, "image")} · ${bytes(page.bytes)}`);
        sayWithCode(told, items.length ? "" : search.value ? "No image that you may see is called so." : "No image is ready yet. The first comes with: `dray pull debian:12`");
        draw();
      } catch (problem) {
        if (turn !== asked) return;
        sayWithCode(told, refusal(problem));
      }
      told.hidden = told.textContent === "";
      made.hidden = items.length === 0;
      more.hidden = after === null;
    }
    sorting(made, order, () => ask(null));
    more.addEventListener("click", () => ask(after));
    search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => ask(null), TYPING_MS); });
    const again = repeatedly(async () => { if (items.length <= MOST_AGAIN) await ask(null, items.length); }, AGAIN_MS);
    const aging = setInterval(draw, 15000);
    return { close() { again.close(); clearInterval(aging); clearTimeout(typing); } };
  },
};
