// Keeps the three tables fresh. Names come from strangers: everything is set as text, never HTML.
"use strict";

const EVERY_MS = 1000;
const UNITS = ["B", "kB", "MB", "GB", "TB"];

function bytes(count) {
  let value = count, unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) { value /= 1000; unit += 1; }
  return `${value.toFixed(unit && value < 100 ? 1 : 0)} ${UNITS[unit]}`;
}

function ago(instant) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(instant)) / 1000));
  if (seconds < 90) return `${seconds} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function row(cells) {
  const made = element("tr");
  for (const cell of cells) {
    const holder = element("td");
    holder.append(cell);
    made.append(holder);
  }
  return made;
}

function progressOf(pull) {
  if (pull.failure) return element("span", pull.failure.message, "reason");
  const progress = pull.progress;
  if (!progress || !progress.total) {
    return element("span", progress?.waiting ?? "waiting", "quiet");
  }
  const holder = element("span");
  const bar = element("progress");
  bar.max = progress.total;
  bar.value = progress.done;
  bar.setAttribute("aria-label", `${progress.stage} of ${pull.reference}`);
  const rate = progress.rate ? `, ${bytes(progress.rate)}/s` : "";
  holder.append(bar, ` ${bytes(progress.done)} of ${bytes(progress.total)}${rate}`);
  if (progress.waiting) holder.append(element("span", ` ${progress.waiting}`, "quiet"));
  return holder;
}

function fill(id, items, cellsOf) {
  document.getElementById(id).replaceChildren(...items.map((item) => row(cellsOf(item))));
  document.getElementById(`no-${id}`).hidden = items.length > 0;
}

async function get(path) {
  const response = await fetch(`/api/v1${path}`, { signal: AbortSignal.timeout(5000) });
  if (!response.ok) throw new Error(`the gateway answered ${response.status}`);
  return (await response.json()).items;
}

let lastSeen = null;

async function refresh() {
  const freshness = document.getElementById("freshness");
  try {
    const [pulls, images, nodes] = await Promise.all([get("/queue"), get("/images"), get("/nodes")]);
    fill("pulls", pulls, (pull) => [
      pull.reference, pull.system, element("span", pull.state, `state ${pull.state}`),
      progressOf(pull), ago(pull.requested_at),
    ]);
    fill("images", images, (image) => [
      image.reference, image.system, element("code", image.id.slice(0, 12)), bytes(image.size),
      ago(image.ready_at),
    ]);
    fill("nodes", nodes, (node) => [
      node.node, node.system, node.kernel, node.mounter, String(node.mounts), ago(node.seen_at),
    ]);
    lastSeen = new Date();
    freshness.textContent = "live";
    freshness.classList.remove("stale");
  } catch (problem) {
    const since = lastSeen ? `as of ${lastSeen.toLocaleTimeString()}` : "nothing seen yet";
    freshness.textContent = `stale (${since}): ${problem.message}`;
    freshness.classList.add("stale");
  }
  setTimeout(refresh, EVERY_MS);
}

refresh();
