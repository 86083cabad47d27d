// The pulls under way, and those that failed: to be found, sorted, and understood.

import { keyed, make, say, table } from "../dom.js";
import { matches, SORTS } from "../parts/pull-facts.js";
import { COLUMNS, pullRow } from "../parts/pull-row.js";
import { UNDER_WAY } from "../parts/state.js";

const SHOWN = ["image", "state", "progress", "age", "tries", "user"];
const STATES = [...UNDER_WAY, "FAILURE"];

export const pulls = {
  name: "pulls",
  title: "Pulls",
  path: "/pulls",
  inMenu: true,
  open(holder, { store, query }) {
    const chosen = { text: query.get("q") ?? "", state: query.get("state") ?? "", sort: query.get("sort") ?? "oldest" };
    if (!Object.hasOwn(SORTS, chosen.sort)) chosen.sort = "oldest";
    const found = make("p", { className: "quiet found" });
    const text = make("input", { type: "search", value: chosen.text, placeholder: "image, user, system, reason", autocomplete: "off", spellcheck: false });
    const sort = make("select", {}, ...Object.entries(SORTS).map(([value, { title }]) => make("option", { value }, title)));
    sort.value = chosen.sort;
    const states = make("div", { className: "choices", role: "group", "aria-label": "State" });
    const rows = table("Pulls", SHOWN.map((name) => COLUMNS[name]));
    rows.classList.add("pulls");
    const empty = make("div", { className: "empty" });
    const draw = () => {
      const search = new URLSearchParams(Object.entries({ q: chosen.text, state: chosen.state, sort: chosen.sort === "oldest" ? "" : chosen.sort })
        .filter(([, value]) => value));
      history.replaceState(null, "", search.size ? `#/pulls?${search}` : "#/pulls");
      page.update(store);
    };
    text.addEventListener("input", () => { chosen.text = text.value; draw(); });
    sort.addEventListener("change", () => { chosen.sort = sort.value; draw(); });
    const choose = (state) => { chosen.state = state; draw(); };
    holder.append(
      make("div", { className: "heading" }, make("h1", {}, "Pulls"), found),
      make("div", { className: "tools" }, states, make("div", { className: "tools" }, make("label", {}, "Find ", text), make("label", {}, "Sort ", sort))),
      make("div", { className: "card" }, rows, empty),
    );

    const page = {
      update({ pulls: known, freshness }) {
        const all = [...known.values()];
        const words = chosen.text.toLowerCase().split(/\s+/).filter(Boolean);
        const wanted = all.filter((pull) => (!chosen.state || pull.state === chosen.state) && matches(pull, words))
          .sort(SORTS[chosen.sort].compare);
        choices(states, all, chosen.state, choose);
        keyed(rows.body, wanted, (pull) => pull.id, () => pullRow(SHOWN));
        say(found, wanted.length === all.length ? "" : `${wanted.length} of ${all.length}`);
        rows.hidden = wanted.length === 0;
        emptyWords(empty, all.length > 0, wanted.length > 0, freshness);
      },
    };
    return page;
  },
};

/** The states that occur, with how many pulls are in each; pressed: only that one is shown. */
function choices(holder, all, chosen, choose) {
  const counts = new Map(STATES.map((state) => [state, 0]));
  for (const { state } of all) counts.set(state, (counts.get(state) ?? 0) + 1);
  const shown = STATES.filter((state) => state !== "EXAMINATION" || counts.get(state) || chosen === state);
  const items = [{ state: "", name: "All", count: all.length }, ...shown.map((state) => ({ state, name: state, count: counts.get(state) }))]
    .map((item) => ({ ...item, pressed: item.state === chosen }));
  keyed(holder, items, ({ state }) => state, ({ state, name }) => {
    const many = make("b");
    const made = make("button", { type: "button", className: "choice", onclick: () => choose(state) }, `${name} `, many);
    made.update = ({ count, pressed }) => {
      say(many, String(count));
      made.setAttribute("aria-pressed", String(pressed));
    };
    return made;
  });
}

function emptyWords(holder, any, shown, { since }) {
  holder.hidden = shown;
  if (shown) return;
  const word = any ? "filtered" : since === null ? "unknown" : "none";
  if (holder.dataset.word === word) return;
  holder.dataset.word = word;
  holder.replaceChildren(...{
    filtered: [make("p", {}, "No pull matches. Choose “All”, or find something else.")],
    unknown: [make("p", {}, "Nothing has been heard yet.")],
    none: [make("p", {}, "No pull is under way, and none failed lately. This begins one:"), make("pre", {}, "dray pull debian:12")],
  }[word]);
}
