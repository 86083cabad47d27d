// Lines and stacked areas over time, drawn by hand as SVG: no value is interpolated over a gap, and
// each can be read by pointer, by keyboard and by a screen reader.

import { make, say, svg } from "../dom.js";
import { hourAndMinute, timeTicks, valueTicks, written, writtenShort } from "./ticks.js";

// Series are told apart by more than their colour.
const DASHES = [null, "6 3", "2 3", "9 3 2 3"];
const HATCHED = new Set(["bad", "lost"]);
const STEPS = { ArrowLeft: -1, ArrowRight: 1, PageUp: -15, PageDown: 15, Home: -Infinity, End: Infinity };
let charts = 0;

/** Nothing, on top of something: it must not look as if that something were of its colour. */
const onTop = ([low, high]) => low > 0 && low === high;

class Chart {
  #unit;
  #stacked;
  #height;
  #name = `chart-${(charts += 1)}`;
  #title;
  #times = [];
  #series = [];
  #scale = null;
  #at = null;
  #width = 0;
  #legend = make("ul", { className: "chart-legend" });
  #readout = make("span", { className: "chart-time quiet" });
  #told = make("p", { className: "hidden", role: "status" });
  #grid = svg("g", { class: "chart-grid" });
  #marks = svg("g", {});
  #cross = svg("line", { class: "chart-cross" });
  #dots = svg("g", {});
  #drawing;
  #observer = new ResizeObserver(([{ contentRect }]) => this.#resized(contentRect.width));

  constructor(holder, { title, unit = "", times = [], series = [], stacked = false, height = 170 }) {
    this.#title = title;
    this.#unit = unit;
    this.#stacked = stacked;
    this.#height = height;
    const hatch = svg("pattern", { id: `${this.#name}-hatch`, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      svg("rect", { width: 2, height: 6, class: "chart-hatch" }));
    this.#drawing = svg("svg", { role: "img", tabindex: 0, class: "chart-drawing", height },
      svg("defs", {}, hatch), this.#grid, this.#marks, this.#cross, this.#dots);
    this.#drawing.addEventListener("pointermove", (event) => this.#point(event));
    this.#drawing.addEventListener("pointerleave", () => this.#show(null));
    this.#drawing.addEventListener("blur", () => this.#show(null));
    this.#drawing.addEventListener("keydown", (event) => this.#key(event));
    this.element = make("figure", { className: "chart" },
      make("figcaption", {}, make("h3", {}, title), this.#readout, this.#legend), this.#drawing, this.#told);
    holder.append(this.element);
    this.#observer.observe(this.element);
    this.update({ times, series });
  }

  /** `times` as ISO or milliseconds; `series` as `[{name, values, tone}]`, null where not known. */
  update({ times, series }) {
    const same = series.length === this.#series.length && series.every(({ name }, n) => name === this.#series[n].name);
    this.#times = times.map((time) => (typeof time === "number" ? time : Date.parse(time)));
    this.#series = series;
    if (this.#at >= times.length) this.#at = null;
    if (!same) {
      this.#legend.replaceChildren(...series.map(({ name, tone }, n) => this.#entry(name, tone, n)));
      const kinds = this.#stacked ? ["chart-area", "chart-hatching", "chart-line"] : ["chart-line"];
      this.#marks.replaceChildren(...series.flatMap(({ tone }, n) => kinds.map((kind) => this.#mark(kind, tone, n))));
      this.#dots.replaceChildren(...series.map(({ tone }) => svg("circle", { r: 3.5, class: "chart-dot", "data-tone": tone ?? "work" })));
    }
    this.#draw();
  }

  close() {
    this.#observer.disconnect();
    this.element.remove();
  }

  #entry(name, tone, n) {
    const line = svg("svg", { width: 22, height: 10, "aria-hidden": "true", "data-tone": tone ?? "work" });
    if (this.#stacked) {
      line.append(svg("rect", { x: 5, width: 12, height: 10, class: "chart-area" }));
      if (HATCHED.has(tone)) line.append(svg("rect", { x: 5, width: 12, height: 10, fill: `url(#${this.#name}-hatch)` }));
    } else line.append(svg("line", { x1: 1, x2: 21, y1: 5, y2: 5, class: "chart-line", "stroke-dasharray": DASHES[n % DASHES.length] }));
    return make("li", {}, line, make("span", { className: "quiet" }, name), make("b", {}, ""));
  }

  #mark(kind, tone, n) {
    const hatching = kind === "chart-hatching";
    return svg("path", {
      class: kind,
      "data-tone": tone ?? "work",
      fill: hatching && HATCHED.has(tone) ? `url(#${this.#name}-hatch)` : hatching ? "none" : null,
      "stroke-dasharray": kind === "chart-line" && !this.#stacked ? DASHES[n % DASHES.length] : null,
    });
  }

  #resized(width) {
    if (Math.abs(width - this.#width) < 1) return;
    this.#width = width;
    this.#draw();
  }

  /** The upper and lower edge of each series: itself and 0, or on top of those below. */
  #edges() {
    const below = this.#times.map(() => 0);
    return this.#series.map(({ values }) => values.map((value, n) => {
      if (value === null || value === undefined) return null;
      const low = below[n];
      if (this.#stacked) below[n] += value;
      return [low, low + value];
    }));
  }

  #draw() {
    if (!this.#width || !this.#drawing.isConnected) return;
    const edges = this.#edges();
    const most = edges.flat().reduce((high, edge) => Math.max(high, edge?.[1] ?? 0), 0);
    const letter = parseFloat(getComputedStyle(this.#drawing).fontSize);
    const ticks = valueTicks(most, this.#unit, Math.max(2, Math.floor(this.#height / 40)));
    const labels = ticks.map(writtenShort(this.#unit));
    const left = Math.ceil(Math.max(...labels.map((text) => text.length)) * letter * 0.6) + 10;
    const right = this.#width - Math.ceil(letter * 1.5), top = 8, bottom = this.#height - letter * 1.7;
    const first = this.#times[0] ?? 0, span = Math.max(1, (this.#times.at(-1) ?? 1) - first);
    const x = (time) => left + ((time - first) / span) * (right - left);
    const y = (value) => bottom - (value / ticks.at(-1)) * (bottom - top);
    this.#scale = { x, y, left, right, top, bottom, edges };
    this.#drawing.setAttribute("viewBox", `0 0 ${this.#width} ${this.#height}`);
    this.#drawing.setAttribute("width", this.#width);
    this.#axes(ticks, labels, letter, span);
    const paths = edges.flatMap((edge) => (this.#stacked ? [this.#area(edge), this.#area(edge), this.#line(edge)] : [this.#line(edge)]));
    [...this.#marks.children].forEach((path, n) => path.setAttribute("d", paths[n]));
    this.#show(this.#at);
    this.#drawing.setAttribute("aria-label", this.#summary());
  }

  #axes(ticks, labels, letter, span) {
    const { x, y, left, right, bottom } = this.#scale;
    const rows = ticks.flatMap((tick, n) => [
      svg("line", { x1: left, x2: right, y1: y(tick), y2: y(tick), class: n ? null : "chart-base" }),
      svg("text", { x: left - 6, y: y(tick) + letter * 0.35, "text-anchor": "end" }, labels[n]),
    ]);
    const times = this.#times.length < 2 ? this.#times : timeTicks(this.#times[0], this.#times[0] + span, (right - left) / (letter * 6));
    const columns = times.flatMap((time) => [
      svg("line", { x1: x(time), x2: x(time), y1: bottom, y2: bottom + 4, class: "chart-base" }),
      svg("text", { x: x(time), y: bottom + letter * 1.4, "text-anchor": "middle" }, hourAndMinute(time)),
    ]);
    this.#grid.replaceChildren(...rows, ...columns);
  }

  /** One path, broken where a value is not known; a value alone is a dot. */
  #line(edge) {
    const { x, y } = this.#scale;
    let open = false;
    return edge.map((at, n) => {
      if (at === null || onTop(at)) { open = false; return ""; }
      const place = `${x(this.#times[n]).toFixed(1)} ${y(at[1]).toFixed(1)}`;
      const alone = !open && (edge[n + 1] ?? null) === null;
      const piece = open ? `L${place}` : `M${place}${alone ? "h0.01" : ""}`;
      open = true;
      return piece;
    }).join("");
  }

  #area(edge) {
    const { x, y } = this.#scale;
    const pieces = [];
    let run = [];
    edge.forEach((at, n) => {
      if (at !== null) run.push(n);
      if (run.length && (at === null || n === edge.length - 1)) {
        const place = (k, side) => `${x(this.#times[k]).toFixed(1)} ${y(edge[k][side]).toFixed(1)}`;
        pieces.push(`M${run.map((k) => place(k, 1)).join("L")}L${run.toReversed().map((k) => place(k, 0)).join("L")}Z`);
        run = [];
      }
    });
    return pieces.join("");
  }

  #point(event) {
    if (!this.#times.length || !this.#scale) return;
    const { left, right } = this.#scale;
    const part = (event.clientX - this.#drawing.getBoundingClientRect().left - left) / (right - left);
    const first = this.#times[0], time = first + part * (this.#times.at(-1) - first);
    let near = 0;
    this.#times.forEach((at, n) => { if (Math.abs(at - time) < Math.abs(this.#times[near] - time)) near = n; });
    this.#show(near);
  }

  #key(event) {
    const step = STEPS[event.key];
    if (event.key === "Escape") return this.#show(null);
    if (step === undefined || !this.#times.length) return undefined;
    event.preventDefault();
    const last = this.#times.length - 1;
    this.#show(Math.min(last, Math.max(0, (this.#at ?? last) + (this.#at === null && step === -1 ? 0 : step))));
    return say(this.#told, this.#words(this.#at));
  }

  #words(n) {
    const write = written(this.#unit);
    return `${hourAndMinute(this.#times[n])}: ${this.#series.map(({ name, values }) => `${name} ${write(values[n])}`).join(", ")}`;
  }

  /** The values of one moment; without one the last that are known. */
  #show(n) {
    this.#at = n;
    const { x, y, top, bottom, edges } = this.#scale ?? {};
    const write = written(this.#unit);
    const latest = (values) => values.findLast((value) => value !== null && value !== undefined);
    [...this.#legend.children].forEach((entry, k) => {
      const { values } = this.#series[k];
      say(entry.lastElementChild, write(n === null ? latest(values) : values[n]));
    });
    say(this.#readout, n === null ? "" : `at ${hourAndMinute(this.#times[n])}`);
    const visible = n === null || !this.#scale ? "hidden" : "visible";
    this.#cross.setAttribute("visibility", visible);
    this.#dots.setAttribute("visibility", visible);
    if (visible === "hidden") return;
    for (const [key, value] of Object.entries({ x1: x(this.#times[n]), x2: x(this.#times[n]), y1: top, y2: bottom })) this.#cross.setAttribute(key, value);
    [...this.#dots.children].forEach((dot, k) => {
      const edge = edges[k][n] ?? null;
      dot.setAttribute("cx", x(this.#times[n]));
      dot.setAttribute("cy", edge === null || onTop(edge) ? -9 : y(edge[1]));
    });
  }

  /** What a screen reader says of it. */
  #summary() {
    if (!this.#times.length) return `${this.#title}: nothing is known yet.`;
    const write = written(this.#unit);
    const parts = this.#series.map(({ name, values }) => {
      const known = values.filter((value) => value !== null && value !== undefined);
      if (!known.length) return `${name}: not known`;
      return `${name}: now ${write(known.at(-1))}, at most ${write(known.reduce((high, value) => Math.max(high, value), 0))}`;
    });
    const range = `${hourAndMinute(this.#times[0])} to ${hourAndMinute(this.#times.at(-1))}`;
    return `${this.#title}, ${range}. ${parts.join("; ")}. Arrow keys tell the values of each moment.`;
  }
}

/** Whether anything is known of any moment: on a fresh site nothing is, for its first minutes. */
export function hasFigures({ series }) {
  return Object.values(series).some((values) => values.some((value) => value !== null));
}

/** A chart in `holder`: `{element, update({times, series}), close()}`. Unit: bytes, seconds, or a count. */
export function lineChart(holder, options) {
  return new Chart(holder, options);
}
