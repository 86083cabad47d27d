// Very many nodes at a glance: a cell for each on a canvas, with a legend that counts and filters.
// Only cells that changed are drawn again. What is under the pointer, or under the arrow keys, is
// told in words; Enter or a click holds it.

import { make, say } from "../dom.js";
import { number } from "../format.js";
import { onTheme, sprites } from "./cells.js";
import { arrange, nodeAt, rowOf } from "./layout.js";

const LEAST_HEIGHT = 220;
const OF_THE_WINDOW = 0.6;
const FAINT = 0.13;
const LABEL_APART = 15;

class Grid {
  #kinds;
  #onPick;
  #names = [];
  #letters = [];
  #places = new Map();
  #counts = new Map();
  #sprites = null;
  #plan = null;
  #scale = 1;
  #gutter = 0;
  #width = 0;
  #at = null;
  #only = null;
  #dirty = new Set();
  #drawing = false;
  #endTheme = onTheme(() => this.#arrange());
  #legend = make("div", { className: "grid-legend", role: "group" });
  #canvas;
  #cursor = make("div", { className: "grid-cursor", hidden: true });
  #tip = make("div", { className: "grid-tip", hidden: true });
  #told = make("p", { className: "hidden", role: "status" });
  #area;
  #observer = new ResizeObserver(([{ contentRect }]) => {
    if (Math.abs(contentRect.width - this.#width) < 1) return;
    this.#width = contentRect.width;
    this.#arrange();
  });

  constructor(holder, { label, kinds, onPick }) {
    this.#kinds = kinds;
    this.#onPick = onPick;
    this.#legend.setAttribute("aria-label", `States of ${label}`);
    this.#canvas = make("canvas", { tabIndex: 0, role: "application", "aria-roledescription": "grid of nodes", "aria-label": label });
    this.#area = make("div", { className: "grid-area" }, this.#canvas, this.#cursor, this.#tip);
    this.element = make("div", { className: "grid" }, this.#legend, this.#area, this.#told);
    this.#canvas.addEventListener("pointermove", (event) => this.#point(this.#under(event)));
    this.#canvas.addEventListener("pointerleave", () => this.#point(null));
    this.#canvas.addEventListener("blur", () => this.#point(null));
    this.#canvas.addEventListener("click", (event) => this.#pick(this.#under(event)));
    this.#canvas.addEventListener("keydown", (event) => this.#key(event));
    this.label = label;
    holder.append(this.element);
    this.#observer.observe(this.#area);
  }

  /** All nodes, in order, and the letter of each. */
  show(names, letters) {
    const same = names.length === this.#names.length && names.every((name, n) => name === this.#names[n]);
    if (!same) {
      this.#names = names;
      this.#places = new Map(names.map((name, n) => [name, n]));
      this.#at = null;
    }
    const before = this.#letters;
    this.#letters = [...letters];
    this.#counts = new Map();
    for (const letter of this.#letters) this.#counts.set(letter, (this.#counts.get(letter) ?? 0) + 1);
    if (same && this.#plan) this.#letters.forEach((letter, n) => { if (letter !== before[n]) this.#dirty.add(n); });
    else this.#arrange();
    this.#changed();
  }

  /** New letters of some. */
  change(at, letters) {
    at.forEach((node, n) => {
      const before = this.#letters[node];
      if (before === undefined || before === letters[n]) return;
      this.#counts.set(before, this.#counts.get(before) - 1);
      this.#counts.set(letters[n], (this.#counts.get(letters[n]) ?? 0) + 1);
      this.#letters[node] = letters[n];
      this.#dirty.add(node);
    });
    this.#changed();
  }

  letterOf(name) { return this.#letters[this.#places.get(name)]; }
  nameOf(letter) { return this.#kinds.find((kind) => kind.letter === letter)?.name ?? letter; }
  count(letter) { return this.#counts.get(letter) ?? 0; }
  named(letter) { return this.#names.filter((_, n) => this.#letters[n] === letter); }

  close() {
    this.#observer.disconnect();
    this.#endTheme();
  }

  #changed() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#drawLegend();
      if (this.#plan) for (const node of this.#dirty) this.#cell(node);
      this.#dirty.clear();
      if (this.#at !== null) this.#describe(this.#at);
    });
  }

  #drawLegend() {
    const present = this.#kinds.filter(({ letter }) => this.count(letter) || letter === this.#only);
    if (this.#legend.children.length !== present.length || present.some(({ letter }, n) => this.#legend.children[n].dataset.letter !== letter)) {
      this.#legend.replaceChildren(...present.map((kind) => this.#legendKey(kind)));
    }
    present.forEach(({ letter }, n) => {
      say(this.#legend.children[n].lastElementChild, number(this.count(letter)));
      this.#legend.children[n].setAttribute("aria-pressed", String(this.#only === letter));
    });
    const words = present.map(({ letter, name }) => `${number(this.count(letter))} ${name}`).join(", ");
    this.#canvas.setAttribute("aria-label", `${this.label}: ${number(this.#names.length)} nodes, ${words || "nothing known"}. Arrow keys go from node to node, Enter shows one.`);
  }

  #legendKey({ letter, name, hint }) {
    const size = Math.round(14 * (devicePixelRatio || 1));
    const swatch = sprites(this.#kinds, size).get(letter);
    swatch.className = "grid-swatch";
    swatch.setAttribute("aria-hidden", "true");
    return make("button", {
      type: "button", title: `${hint ? `${hint[0].toUpperCase()}${hint.slice(1)}. ` : ""}Press to show these alone.`, dataset: { letter },
      onclick: () => { this.#only = this.#only === letter ? null : letter; this.#paint(); this.#changed(); },
    }, swatch, make("span", {}, name), make("b", {}, ""));
  }

  #arrange() {
    if (!this.#width || !this.#names.length || !this.#area.isConnected) return;
    const letterWidth = parseFloat(getComputedStyle(this.#area).fontSize) * 0.62;
    const longest = this.#names.reduce((most, name) => Math.max(most, name.length), 0);
    const whole = Math.ceil(Math.min(longest, 18) * letterWidth) + 8;
    this.#gutter = whole < this.#width * 0.16 ? whole : 0;
    const height = Math.max(LEAST_HEIGHT, innerHeight * OF_THE_WINDOW);
    this.#plan = arrange(this.#names, this.#width - this.#gutter, height);
    this.#scale = devicePixelRatio || 1;
    this.#canvas.width = Math.round(this.#width * this.#scale);
    this.#canvas.height = Math.round(this.#plan.height * this.#scale);
    this.#canvas.style.width = `${this.#width}px`;
    this.#canvas.style.height = `${this.#plan.height}px`;
    this.#sprites = sprites(this.#kinds, Math.round(this.#plan.cell * this.#scale));
    this.#legend.replaceChildren();
    this.#paint();
    this.#changed();
  }

  /** Everything anew: another size, theme, filter or set of nodes. */
  #paint() {
    if (!this.#plan) return;
    const context = this.#canvas.getContext("2d");
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    if (this.#gutter) this.#labels(context);
    this.#letters.forEach((_, node) => this.#cell(node));
    this.#dirty.clear();
  }

  #labels(context) {
    const style = getComputedStyle(this.#area);
    context.font = `${parseFloat(style.fontSize) * this.#scale}px ${style.fontFamily}`;
    context.fillStyle = style.color;
    context.textBaseline = "middle";
    let last = -LABEL_APART;
    for (const { start, y } of this.#plan.rows) {
      if (y - last < LABEL_APART) continue;
      const name = this.#names[start];
      context.fillText(name.length > 18 ? `…${name.slice(-17)}` : name, 0, (y + this.#plan.cell / 2) * this.#scale);
      last = y;
    }
  }

  #place(node) {
    const row = this.#plan.rows[rowOf(this.#plan, node)];
    return { x: this.#gutter + (node - row.start) * this.#plan.cell, y: row.y };
  }

  #cell(node) {
    const context = this.#canvas.getContext("2d");
    const sprite = this.#sprites.get(this.#letters[node]);
    const { x, y } = this.#place(node);
    const left = Math.round(x * this.#scale), top = Math.round(y * this.#scale);
    const side = Math.round(this.#plan.cell * this.#scale);
    context.clearRect(left, top, side, side);
    if (!sprite) return;
    context.globalAlpha = this.#only === null || this.#letters[node] === this.#only ? 1 : FAINT;
    context.drawImage(sprite, left, top);
    context.globalAlpha = 1;
  }

  #under(event) {
    if (!this.#plan) return null;
    const box = this.#canvas.getBoundingClientRect();
    return nodeAt(this.#plan, event.clientX - box.left - this.#gutter, event.clientY - box.top);
  }

  #point(node) {
    this.#at = node;
    this.#cursor.hidden = this.#tip.hidden = node === null;
    if (node !== null) this.#describe(node);
  }

  #describe(node) {
    const { x, y } = this.#place(node), { cell } = this.#plan;
    const words = `${this.#names[node]} · ${this.nameOf(this.#letters[node])}`;
    for (const [key, value] of Object.entries({ left: x - 2, top: y - 2, width: cell + 3, height: cell + 3 })) this.#cursor.style.setProperty(key, `${value}px`);
    say(this.#tip, words);
    this.#tip.style.setProperty("left", `${Math.max(0, Math.min(x, this.#width - this.#tip.offsetWidth))}px`);
    this.#tip.style.setProperty("top", `${y < 34 ? y + cell + 6 : y - this.#tip.offsetHeight - 6}px`);
  }

  #pick(node) {
    if (node === null) return;
    this.#point(node);
    this.#onPick(this.#names[node]);
  }

  #key(event) {
    if (!this.#plan) return;
    if (event.key === "Escape") return void this.#point(null);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return void this.#pick(this.#at ?? 0);
    }
    const row = rowOf(this.#plan, this.#at ?? 0), { rows } = this.#plan;
    const beside = (step) => {
      const to = rows[Math.max(0, Math.min(rows.length - 1, row + step))];
      return to.start + Math.min(to.length - 1, (this.#at ?? 0) - rows[row].start);
    };
    const steps = {
      ArrowLeft: () => this.#at - 1, ArrowRight: () => this.#at + 1, ArrowUp: () => beside(-1), ArrowDown: () => beside(1),
      Home: () => 0, End: () => this.#names.length - 1, PageUp: () => beside(-10), PageDown: () => beside(10),
    };
    if (!steps[event.key]) return;
    event.preventDefault();
    this.#point(this.#at === null ? 0 : Math.max(0, Math.min(this.#names.length - 1, steps[event.key]())));
    say(this.#told, this.#tip.textContent);
  }
}

/** A grid: `{show(names, letters), change(at, letters), close(), …}`; `onPick(name)` when one is chosen. */
export function nodeGrid(holder, options) {
  return new Grid(holder, options);
}
