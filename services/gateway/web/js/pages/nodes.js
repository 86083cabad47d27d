// All nodes of a system: which are busy, which are lost, and what one of them says of itself.

import { get } from "../api.js";
import { keyed, make, say, section, table } from "../dom.js";
import { ago, bytes, counted, moment, number } from "../format.js";
import { repeatedly } from "../parts/asking.js";
import { AGENTS } from "../parts/cells.js";
import { copyButton, factList, refusal } from "../parts/facts.js";
import { nodeGrid } from "../parts/grid.js";
import { expand, fold, HostlistError } from "../parts/hostlist.js";

const ASK_MS = 5000;
const LOST_SHOWN = 100;

/** What an agent told last, as facts. */
function agentFacts() {
  const facts = factList("inline");
  const show = (node) => facts.set({
    "State": node.lost ? "lost" : node.mounts ? "busy" : "idle",
    "Heard": ago(node.seen_at),
    "Mounts": number(node.mounts),
    "Mounts by": node.mounter,
    "Reads": node.codecs.join(", ") || "–",
    "Kernel": node.kernel,
    "Agent": node.capacity?.version ?? null,
    "CPUs": node.capacity ? number(node.capacity.cpus) : null,
    "Memory": node.capacity ? bytes(node.capacity.memory_bytes) : null,
    "Booted": node.capacity ? moment(node.capacity.booted_at) : null,
    "Cache": node.capacity?.cache ? `${bytes(node.capacity.cache.used_bytes)} in ${counted(node.capacity.cache.images, "image")}` : null,
  });
  return { facts, show };
}

function lostRow() {
  const made = make("tr", {}, make("th", { scope: "row", className: "mono" }), make("td", { className: "num" }), make("td", { className: "num" }), make("td", { className: "mono" }));
  made.update = ({ node, seen_at: seen, mounts, kernel }) => {
    const [name, heard, mounted, on] = made.children;
    say(name, node);
    say(heard, ago(seen));
    heard.title = moment(seen);
    say(mounted, number(mounts));
    say(on, kernel);
  };
  return made;
}

export const nodes = {
  name: "nodes",
  title: "Nodes",
  path: "/nodes",
  inMenu: true,
  open(holder, { store }) {
    const choice = make("select", {});
    const filter = make("input", { type: "search", placeholder: "nid[001-128],login1", autocomplete: "off", className: "mono" });
    filter.spellcheck = false;
    const problem = make("p", { className: "bad", role: "alert" });
    const told = make("p", { className: "empty" }, "Asking…");
    const pinned = make("h3", {});
    const agent = agentFacts();
    const detail = make("div", { className: "pinned-node", role: "status", hidden: true }, pinned, agent.facts);
    const chosenSystem = make("label", {}, "System ", choice);
    const all = section("Agents", make("div", { className: "controls" }, chosenSystem, make("label", { className: "grow" }, "Only ", filter)), problem, told);
    const grid = nodeGrid(all, { label: "Nodes of the system", kinds: AGENTS, onPick: pick });
    all.append(detail);
    const lostTable = table("Lost nodes", [{ title: "Node" }, { title: "Heard last", className: "num" }, { title: "Mounts then", className: "num" }, { title: "Kernel" }]);
    const lost = section("Lost", lostTable);
    lost.beside.append(make("span"), copyButton("Copy the hostlist of lost nodes", () => fold(grid.named("L"))));
    grid.element.hidden = lost.hidden = true;
    holder.append(make("h1", {}, "Nodes"), all, lost);
    let known = null;

    async function pick(name) {
      detail.hidden = false;
      say(pinned, name);
      agent.facts.hidden = true;
      try {
        const { items } = await get("/nodes", { system: choice.value, nodes: name });
        agent.facts.hidden = items.length === 0;
        if (items.length) agent.show(items[0]);
      } catch (refused) {
        say(pinned, `${name}: ${refusal(refused)}`);
      }
    }

    /** The nodes that are asked for, in their order; null: the filter cannot be read. */
    function wanted(names) {
      if (!filter.value.trim()) return null;
      const only = new Set(expand(filter.value));
      return names.flatMap((name, n) => (only.has(name) ? [n] : []));
    }

    function draw() {
      if (known === null) return;
      const { names, letters } = known;
      try {
        const places = wanted(names);
        say(problem, "");
        filter.removeAttribute("aria-invalid");
        const shown = places === null ? names : places.map((n) => names[n]);
        grid.element.hidden = shown.length === 0;
        told.hidden = shown.length > 0;
        say(told, names.length ? "No node of this system is called so." : "No agent of this system was heard yet. Each node runs one: dray-agent.");
        grid.show(shown, places === null ? letters : places.map((n) => letters[n]));
        say(all.beside, places === null ? counted(names.length, "node") : `${number(shown.length)} of ${counted(names.length, "node")}`);
      } catch (wrong) {
        if (!(wrong instanceof HostlistError)) throw wrong;
        filter.setAttribute("aria-invalid", "true");
        say(problem, `This is no hostlist yet: ${wrong.message}`);
      }
    }

    async function ask() {
      if (!choice.value) await systems();
      const system = choice.value;
      const view = await get("/nodes/grid", { system });
      if (system !== choice.value) return;
      const before = known;
      known = { hostlist: view.hostlist, letters: view.letters,
        names: before?.hostlist === view.hostlist ? before.names : view.hostlist ? expand(view.hostlist) : [] };
      draw();
      const count = [...view.letters].filter((letter) => letter === "L").length;
      lost.hidden = count === 0;
      if (!count) return;
      say(lost.beside.firstElementChild, count > LOST_SHOWN ? `the first ${LOST_SHOWN} of ${number(count)}` : number(count));
      const { items } = await get("/nodes", { system, state: "lost", limit: LOST_SHOWN });
      keyed(lostTable.body, items, ({ node }) => node, lostRow);
    }

    async function systems() {
      const { items } = await get("/systems");
      choice.replaceChildren(...items.map((name) => make("option", { value: name }, name)));
      choice.value = items.includes(store.system) ? store.system : items[0];
      chosenSystem.hidden = items.length < 2;
    }

    const asking = repeatedly(ask, ASK_MS, (refused) => {
      if (known === null) say(told, refusal(refused));
      else say(all.beside, `as of a while ago: ${refused.message}`);
    });
    choice.addEventListener("change", () => { known = null; detail.hidden = true; asking.now(); });
    filter.addEventListener("input", draw);
    return {
      close() {
        asking.close();
        grid.close();
      },
    };
  },
};
