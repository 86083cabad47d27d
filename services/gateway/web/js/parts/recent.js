// The last hours in small charts, and how many pulls became READY: for admins.

import { get } from "../api.js";
import { make, say } from "../dom.js";
import { repeatedly } from "./asking.js";
import { hasFigures, lineChart } from "./charts.js";
import { refusal } from "./facts.js";

const PAUSE_MS = 30000;
const HOURS = 6;
const CHART_HEIGHT = 110;
const SHOWN = [
  { title: "Pulls", series: [["waiting", "pulls_waiting", "warn"], ["running", "pulls_running", "work"]] },
  { title: "Oldest wait", unit: "seconds", series: [["oldest wait", "oldest_wait_seconds", "warn"]] },
  { title: "Nodes of jobs", series: [["pending", "job_nodes_pending", "work"], ["failed", "job_nodes_failed", "bad"]] },
];

/** Fills the holder; `told(view)` hears each answer. Gives `{close()}`. */
export function recentCharts(holder, told) {
  const problem = make("p", { className: "empty", hidden: true });
  const body = make("div", { className: "recent" });
  holder.append(problem, body);
  let charts = null;
  const seriesOf = (view, { series }) => series.filter(([, key]) => view.series[key])
    .map(([name, key, tone]) => ({ name, tone, values: view.series[key] }));
  const asking = repeatedly(async () => {
    const view = await get("/history", { hours: HOURS });
    const isKnown = hasFigures(view);
    problem.hidden = isKnown;
    body.hidden = !isKnown;
    say(problem, "The first figures come after two minutes: the gateways note how things stand once a minute.");
    charts ??= SHOWN.map((one) => ({ one, chart: lineChart(body, { title: one.title, unit: one.unit, height: CHART_HEIGHT }) }));
    for (const { one, chart } of charts) chart.update({ times: view.times, series: seriesOf(view, one) });
    told(view);
  }, PAUSE_MS, (failed) => {
    problem.hidden = false;
    say(problem, refusal(failed));
  });
  return { close() { asking.close(); for (const { chart } of charts ?? []) chart.close?.(); } };
}

/** What happened within the last hour, of a figure that counts. */
export function lastHour(view, key) {
  const values = view.series[key];
  if (!values) return null;
  return values.slice(-Math.round(3600 / view.step_seconds)).reduce((sum, value) => sum + (value ?? 0), 0);
}
