// A job from its announcement to its first rank: how many of its nodes had the images when, what
// happened meanwhile, and how long nodes took.

import { make, svg, table } from "../dom.js";
import { clock, duration, number } from "../format.js";
import { factList } from "./facts.js";
import { valueTicks, writtenShort } from "./ticks.js";

const WORDS = {
  reserved: "reserved",
  announced: "announced",
  first_node: "first node has the images",
  half_of_nodes: "half of the nodes",
  most_nodes: "99 of 100 nodes",
  all_nodes: "all nodes",
  first_rank: "first rank",
  released: "released",
};
// Drawn among the nodes' arrivals; a reservation may be hours before, an end hours behind.
const DRAWN = new Set(["first_node", "half_of_nodes", "most_nodes", "all_nodes", "first_rank"]);
const SHORT = { first_node: "first", half_of_nodes: "half", most_nodes: "99 %", all_nodes: "all", first_rank: "first rank" };
const HEIGHT = 190;

class JobLine {
  #element;
  #width = 0;
  #data = null;
  #nodes = 0;
  #drawing = svg("svg", { class: "jobline", role: "img", height: HEIGHT });
  #facts = factList("inline");
  #marks = table("What happened when", [{ title: "Moment" }, { title: "Time", className: "num" }, { title: "After", className: "num", hint: "the announcement" }]);
  #observer = new ResizeObserver(([{ contentRect }]) => {
    if (Math.abs(contentRect.width - this.#width) < 1) return;
    this.#width = contentRect.width;
    this.#draw();
  });

  constructor(holder) {
    const figure = make("figure", { className: "chart" }, this.#drawing);
    this.#element = make("div", { className: "jobline-parts", hidden: true }, make("div", {}, figure, this.#facts), this.#marks);
    holder.append(this.#element);
    this.#observer.observe(figure);
  }

  /** `timeline` as the gateway tells it, of a job of so many nodes. */
  update(timeline, nodes) {
    this.#data = timeline;
    this.#element.hidden = false;
    this.#nodes = nodes;
    const announced = this.#announced();
    this.#marks.body.replaceChildren(...timeline.marks.map(({ moment, at }) => {
      const seconds = (Date.parse(at) - announced) / 1000;
      const after = moment === "announced" ? "" : seconds < 0 ? `${duration(-seconds)} before` : duration(seconds);
      return make("tr", {}, make("th", { scope: "row" }, WORDS[moment] ?? moment), make("td", { className: "num" }, clock(at)), make("td", { className: "num" }, after));
    }));
    const { staging } = timeline;
    this.#facts.set({
      "p50 of nodes": staging ? duration(staging.p50) : null,
      "p90": staging ? duration(staging.p90) : null,
      "p99": staging ? duration(staging.p99) : null,
      "the slowest": staging ? duration(staging.most) : null,
    });
    this.#draw();
  }

  close() { this.#observer.disconnect(); }

  #announced() {
    const { marks } = this.#data;
    return Date.parse((marks.find(({ moment }) => moment === "announced") ?? marks[0])?.at ?? 0);
  }

  #draw() {
    if (!this.#data || !this.#width || !this.#drawing.isConnected) return;
    const announced = this.#announced(), { arrived, step_seconds: step } = this.#data;
    const drawn = this.#data.marks.filter(({ moment }) => DRAWN.has(moment))
      .map(({ moment, at }) => ({ moment, seconds: Math.max(0, (Date.parse(at) - announced) / 1000) }));
    const most = Math.max(0.1, ...drawn.map(({ seconds }) => seconds), (arrived.length - 1) * step);
    const letter = parseFloat(getComputedStyle(this.#drawing).fontSize);
    const label = number(this.#nodes);
    const left = Math.ceil(label.length * letter * 0.62) + 10, right = this.#width - letter * 2;
    const top = letter * 4.4, bottom = HEIGHT - letter * 1.8;
    const x = (seconds) => left + (seconds / (most * 1.03)) * (right - left);
    const y = (nodes) => bottom - (nodes / Math.max(1, this.#nodes)) * (bottom - top);
    const ticks = valueTicks(most, "seconds", Math.max(2, (right - left) / (letter * 8))).filter((tick) => tick <= most * 1.03);
    const axes = [0, this.#nodes / 2, this.#nodes].flatMap((nodes, n) => [
      svg("line", { x1: left, x2: right, y1: y(nodes), y2: y(nodes), class: n ? null : "chart-base" }),
      ...(nodes % 1 ? [] : [svg("text", { x: left - 6, y: y(nodes) + letter * 0.35, "text-anchor": "end" }, number(nodes))]),
    ]);
    const times = ticks.flatMap((tick) => [
      svg("line", { x1: x(tick), x2: x(tick), y1: bottom, y2: bottom + 4, class: "chart-base" }),
      svg("text", { x: x(tick), y: bottom + letter * 1.4, "text-anchor": "middle" }, tick ? writtenShort("seconds")(Number(tick.toPrecision(3))) : "announced"),
    ]);
    times[1]?.setAttribute("text-anchor", "start");
    const line = arrived.map((nodes, n) => `${n ? "L" : "M"}${x(n * step).toFixed(1)} ${y(nodes).toFixed(1)}`).join("");
    const area = arrived.length ? `${line}L${x((arrived.length - 1) * step).toFixed(1)} ${bottom}L${left} ${bottom}Z` : "";
    this.#drawing.setAttribute("viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    this.#drawing.setAttribute("width", this.#width);
    this.#drawing.setAttribute("aria-label", this.#summary());
    this.#drawing.replaceChildren(
      svg("g", { class: "chart-grid" }, ...axes, ...times),
      svg("path", { d: area, class: "chart-area", "data-tone": "good" }),
      svg("path", { d: line, class: "chart-line", "data-tone": "good" }),
      ...this.#flags(drawn, x, top, bottom, letter),
    );
  }

  /** Marks stand on up to three levels, so that those close by can be read. */
  #flags(drawn, x, top, bottom, letter) {
    const free = [-Infinity, -Infinity, -Infinity];
    return drawn.flatMap(({ moment, seconds }) => {
      const at = x(seconds), text = SHORT[moment], wide = text.length * letter * 0.62 + 8;
      const before = at + wide > this.#width;
      const level = Math.max(0, free.findIndex((end) => end <= (before ? at - wide : at)));
      free[level] = before ? at : at + wide;
      const y = letter * (1 + 1.3 * (2 - level));
      const tone = moment === "first_rank" ? "work" : "good";
      return [
        svg("line", { x1: at, x2: at, y1: y - letter * 0.8, y2: bottom, class: "jobline-mark", "data-tone": tone }),
        svg("text", { x: before ? at - 4 : at + 4, y, "text-anchor": before ? "end" : "start", class: "jobline-word", "data-tone": tone }, text),
      ];
    });
  }

  #summary() {
    const { arrived, staging } = this.#data;
    const share = `${number(arrived.at(-1) ?? 0)} of ${number(this.#nodes)} nodes have the images`;
    return staging ? `${share}; half of them within ${duration(staging.p50)}, 99 of 100 within ${duration(staging.p99)}.` : `${share}.`;
  }
}

/** The time line of a job: `{update(timeline, nodes), close()}`. */
export function jobLine(holder) {
  return new JobLine(holder);
}
