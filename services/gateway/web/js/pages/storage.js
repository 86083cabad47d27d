// Where the bytes are, what sharing saves, and the last hours.

import { get } from "../api.js";
import { keyed, make, say, section, table } from "../dom.js";
import { ago, bytes, counted, moment, number, percent } from "../format.js";
import { repeatedly } from "../parts/asking.js";
import { stackedBar } from "../parts/bars.js";
import { named, refusal } from "../parts/facts.js";
import { historyCharts } from "../parts/history.js";

const ASK_MS = 30000;
// On a fresh site the first figures may come at any moment.
const SOON_MS = 2000;
const COLUMNS = [
  { title: "Where" }, { title: "Holds", className: "num" }, { title: "Size", className: "num" }, { title: "Free", className: "num" },
  { title: "Reserve", className: "num", hint: "with less room than this, pulls fail" }, { title: "", className: "wide" }, { title: "Counted", className: "num" },
];

/** One file system: what Dray has there, what others have, what is free, and where pulls stop. */
function roomRow() {
  const what = make("th", { scope: "row", className: "nowrap" }), items = make("td", { className: "num" }), size = make("td", { className: "num" });
  const free = make("td", { className: "num" }), reserve = make("td", { className: "num" }), seen = make("td", { className: "num quiet" });
  const bar = stackedBar("room"), line = make("b", { className: "reserve" });
  const holder = make("div", { className: "room-holder" }, bar, line);
  const made = make("tr", {}, what, items, size, free, reserve, make("td", {}, holder), seen);
  made.update = (place) => {
    const room = place.bytes + place.free_bytes;
    const short = place.free_bytes < place.reserve;
    say(what, place.name);
    say(items, place.items);
    say(size, bytes(place.bytes));
    say(free, bytes(place.free_bytes));
    free.classList.toggle("bad", short);
    say(reserve, place.reserve ? bytes(place.reserve) : "–");
    bar.update([
      { key: "used", part: place.bytes, tone: "work", title: `${bytes(place.bytes)} of Dray` },
      { key: "free", part: place.free_bytes, tone: short ? "bad" : "wait", faint: true, title: `${bytes(place.free_bytes)} free` },
    ], `${bytes(place.bytes)} used by Dray, ${bytes(place.free_bytes)} free${place.reserve ? `, ${bytes(place.reserve)} of it in reserve` : ""}`);
    line.hidden = !place.reserve;
    line.title = `With less than ${bytes(place.reserve)} free, pulls fail.`;
    line.style.setProperty("right", `${Math.min(100, (100 * place.reserve) / room)}%`);
    say(seen, ago(place.at));
    seen.title = moment(place.at);
  };
  return named(made, COLUMNS);
}

function places({ stores, systems }) {
  return [
    ...stores.map((store, n) => ({ key: `store ${n}`, name: stores.length > 1 ? `pack store ${n + 1}` : "pack store", items: `${number(store.packs)} packs`, reserve: 0, ...store })),
    ...systems.map((system) => ({ key: system.system, name: `images of ${system.system}`, items: counted(system.images, "image"), reserve: system.reserve_bytes, ...system })),
  ];
}

export const storage = {
  name: "storage",
  title: "Storage",
  path: "/storage",
  inMenu: true,
  adminOnly: true,
  open(holder) {
    const told = make("p", { className: "empty" }, "Asking…");
    const sentence = make("p", { className: "sentence" });
    const wholes = stackedBar("tall"), packs = stackedBar("tall");
    const bars = make("div", { className: "sharing" }, make("span", {}, "images"), wholes, make("span", {}, "packs"), packs);
    const sharing = section("Saved by sharing", told, sentence, bars);
    const rooms = table("File systems", COLUMNS);
    const unseen = make("p", { className: "empty" }, "Not counted yet: distributors tell how full their file systems are once a minute, and whoever cleans the store tells of it then.");
    const room = section("Room", rooms, unseen);
    const charts = historyCharts();
    room.hidden = sentence.hidden = bars.hidden = true;
    holder.append(make("h1", {}, "Storage"), make("div", { className: "columns uneven" }, sharing, room), charts.element);

    let isCounted = false;

    function show(view) {
      const { images, image_bytes: whole, pack_bytes: made, packs: packCount, layers } = view.sharing;
      told.hidden = images > 0;
      say(told, "No image is ready yet. Layers that images have in common are stored once: this shows how much that saves.");
      sentence.hidden = bars.hidden = images === 0;
      const saved = Math.max(0, whole - made);
      say(sentence, `${bytes(whole)} of images are made of ${bytes(made)} of packs: ${percent(saved, whole)} saved.`);
      sentence.title = `${counted(images, "image")}, ${counted(layers, "layer")}, ${counted(packCount, "pack")}`;
      wholes.update([{ key: "all", part: whole, tone: "work", title: bytes(whole) }], `${counted(images, "image")}, each for itself: ${bytes(whole)}`);
      packs.update([
        { key: "packs", part: made, tone: "good", title: `${bytes(made)} of packs` },
        { key: "saved", part: saved, tone: "wait", faint: true, title: `${bytes(saved)} saved` },
      ], `${number(packCount)} packs: ${bytes(made)}, saved ${bytes(saved)}`);
      say(sharing.beside, `${counted(images, "image")} · ${counted(layers, "layer")} · ${counted(packCount, "pack")}`);
      const known = places(view);
      room.hidden = false;
      rooms.hidden = known.length === 0;
      unseen.hidden = known.length > 0;
      isCounted = known.length > 0;
      keyed(rooms.body, known, ({ key }) => key, roomRow);
    }

    const asking = repeatedly(async () => show(await get("/storage")), () => (isCounted ? ASK_MS : SOON_MS), (problem) => { told.hidden = false; say(told, refusal(problem)); });
    return {
      close() {
        asking.close();
        charts.close();
      },
    };
  },
};
