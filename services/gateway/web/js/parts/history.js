// The charts of the last hours, and which figures each has.

import { get } from "../api.js";
import { make, say, section } from "../dom.js";
import { repeatedly } from "./asking.js";
import { hasFigures, lineChart } from "./charts.js";
import { refusal } from "./facts.js";

const ASK_MS = 60000;
const HOURS = [1, 6, 24];
const CHARTS = [
  { title: "Pulls that ended, per minute", stacked: true, perMinute: true, series: [["pulls_ready_total", "ready", "good"], ["pulls_failed_total", "failed", "bad"]] },
  { title: "Pulls under way", series: [["pulls_running", "running", "work"], ["pulls_waiting", "waiting", "warn"]] },
  { title: "The oldest wait", unit: "seconds", series: [["oldest_wait_seconds", "oldest", "warn"]] },
  { title: "Events that wait", series: [["queue_events", "in queues", "work"], ["dead_letters", "dead letters", "bad"]] },
  { title: "Nodes lost", series: [["nodes_lost", "lost", "lost"]] },
  { title: "Jobs", series: [["jobs_running", "running", "work"]] },
  { title: "Nodes of jobs", series: [["job_nodes_pending", "staging", "work"], ["job_nodes_failed", "failed", "bad"]] },
  { title: "Stored", unit: "bytes", series: [["image_bytes", "images", "work"], ["pack_bytes", "packs", "good"]] },
  { title: "Placed, per minute", unit: "bytes", stacked: true, perMinute: true, series: [["placed_bytes_total", "placed", "work"]] },
];

/** A section `{element, close()}`; it asks once a minute, and at once for another range. */
export function historyCharts() {
  let hours = 6;
  const told = make("p", { className: "empty" }, "Asking…");
  const holder = make("div", { className: "charts" });
  const ranges = HOURS.map((each) => make("button", { type: "button", className: "small", onclick: () => { hours = each; mark(); asking.now(); } }, `${each} h`));
  const element = section("The last hours", told, holder);
  element.beside.append(make("div", { className: "ranges", role: "group", "aria-label": "Range of the charts" }, ...ranges));
  let charts = null;

  function mark() {
    ranges.forEach((button, n) => button.setAttribute("aria-pressed", String(HOURS[n] === hours)));
  }

  const seriesOf = ({ series, perMinute }, view) => series.filter(([key]) => key in view.series).map(([key, name, tone]) => {
    const factor = perMinute ? 60 / view.step_seconds : 1;
    return { name, tone, values: view.series[key].map((value) => (value === null ? null : value * factor)) };
  });

  async function ask() {
    const wanted = hours;
    const view = await get("/history", { hours: wanted });
    if (wanted !== hours) return asking.now();
    const isKnown = hasFigures(view);
    told.hidden = isKnown;
    holder.hidden = !isKnown;
    say(told, "The first figures come after two minutes: the gateways note how things stand once a minute.");
    charts ??= CHARTS.map((each) => ({ each, chart: lineChart(holder, { ...each, series: [] }) }));
    for (const { each, chart } of charts) chart.update({ times: view.times, series: seriesOf(each, view) });
    return undefined;
  }

  mark();
  const asking = repeatedly(ask, ASK_MS, (problem) => { told.hidden = false; say(told, refusal(problem)); });
  return {
    element,
    close() {
      asking.close();
      charts?.forEach(({ chart }) => chart.close());
    },
  };
}
