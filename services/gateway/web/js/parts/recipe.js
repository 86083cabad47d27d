// What an image is made of: its layers in proportion, and with how many others it has each.

import { make, section, table } from "../dom.js";
import { bytes, number, percent } from "../format.js";
import { stackedBar } from "./bars.js";

const COLUMNS = [
  { title: "Layer", hint: "the lowest first" }, { title: "Size", className: "num" }, { title: "Dead", className: "num", hint: "bytes of it that no file of the image refers to" },
  { title: "Left out", className: "num", hint: "dead bytes that the image was woven without" }, { title: "Pieces", className: "num" }, { title: "Shared" },
];

const withOthers = (others) => (others ? `with ${number(others)} other ${others === 1 ? "image" : "images"}` : "its own");
const short = (digest) => digest.replace(/^sha256:/, "").slice(0, 12);

export function recipe({ shares, layers, size }) {
  if (!shares.length) {
    return section("Layers", make("p", { className: "empty" },
      layers.length ? `${number(layers.length)} layers. An earlier version placed this image, and kept no more about them.` : "This image was not made of layers: it was imported as one file."));
  }
  const made = table("Layers, the lowest first", COLUMNS);
  const shared = shares.reduce((sum, each) => sum + (each.others ? each.size : 0), 0);
  const dead = shares.reduce((sum, each) => sum + each.dead, 0), leftOut = shares.reduce((sum, each) => sum + each.left_out, 0);
  const whole = shares.reduce((sum, each) => sum + each.size, 0);
  made.body.append(...shares.map((each, n) => make("tr", {},
    make("th", { scope: "row", className: "nowrap" }, make("span", { className: "quiet nth" }, String(n + 1)), make("code", { title: each.digest }, short(each.digest))),
    make("td", { className: "num" }, bytes(each.size)),
    make("td", { className: "num" }, each.dead ? bytes(each.dead) : "–"),
    make("td", { className: "num" }, each.left_out ? bytes(each.left_out) : "–"),
    make("td", { className: "num" }, number(each.pieces)),
    make("td", { className: each.others ? "good nowrap" : "quiet nowrap" }, each.size || each.others ? withOthers(each.others) : "the same as a layer below"))));
  const bar = stackedBar("tall");
  bar.update(shares.map((each, n) => ({
    key: n, part: each.size, tone: each.others ? "good" : "work", hatched: each.others > 0,
    title: `Layer ${n + 1}, ${short(each.digest)}: ${bytes(each.size)}, ${withOthers(each.others)}`,
  })), `${number(shares.length)} layers in proportion of their bytes`);
  const words = [`${bytes(shared)} of ${bytes(whole)} (${percent(shared, whole)}) are shared with other images.`];
  if (dead) words.push(`${bytes(dead)} are dead: deleted or replaced by a layer above.`);
  if (leftOut) words.push(`${bytes(leftOut)} of dead bytes were left out.`);
  if (size > whole) words.push(`Tables take ${bytes(size - whole)}.`);
  const key = make("p", { className: "bar-key" }, make("i", { className: "hatched", dataset: { tone: "good" } }), "shared ", make("i", { dataset: { tone: "work" } }), "its own");
  const part = section("Layers", make("p", {}, words.join(" ")), bar, key, made);
  part.beside.append(number(shares.length));
  return part;
}
