// Figures for people. Sizes are decimal, as the command line shows them.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  let value = count, unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) { value /= 1000; unit += 1; }
  return `${value.toFixed(unit && value < 99.5 ? 1 : 0)} ${UNITS[unit]}`;
}

export function number(count) {
  return count === null || count === undefined ? "–" : Math.round(count).toLocaleString("en");
}

/** "1 image", "2 images". */
export function counted(count, one) {
  return `${number(count)} ${one}${count === 1 ? "" : "s"}`;
}

export function percent(part, whole) {
  return whole ? `${Math.floor((100 * part) / whole)} %` : "–";
}

/** A length of time in one or two units: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 4 days. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  const whole = Math.max(0, seconds);
  if (whole < 9.95) return `${whole.toFixed(1)} s`;
  const rounded = Math.round(whole);
  if (rounded < 60) return `${rounded} s`;
  if (rounded < 600) return `${Math.floor(rounded / 60)} min ${rounded % 60} s`;
  if (rounded < 3600) return `${Math.floor(rounded / 60)} min`;
  if (rounded < 172800) return `${Math.floor(rounded / 3600)} h ${Math.floor((rounded % 3600) / 60)} min`;
  return `${Math.round(rounded / 86400)} days`;
}

/** How long something has lasted by now: whole seconds, since tenths would only flicker. */
export function age(seconds) {
  return seconds < 10 ? `${Math.max(0, Math.floor(seconds))} s` : duration(seconds);
}

/** The same in one unit, but for hours. */
export function roughAge(seconds) {
  return seconds >= 60 && seconds < 3600 ? `${Math.floor(seconds / 60)} min` : age(seconds);
}

/** The gateway's clock: ages are told by it, however wrong the clock of this machine is. */
let ahead = -Infinity;
// What the gateway says of its time may come this late: it was kept for others, or held on its way.
const LATEST_MS = 15000;

export function setClock(instant) {
  const told = Date.parse(instant) - Date.now();
  if (told > ahead || ahead - told > LATEST_MS) ahead = told;
}

/** A moment of this machine's clock, by the gateway's. */
export const byGateway = (milliseconds) => milliseconds + (Number.isFinite(ahead) ? ahead : 0);

export const now = () => byGateway(Date.now());

export const secondsSince = (instant) => (now() - Date.parse(instant)) / 1000;

export function ago(instant) {
  if (!instant) return "–";
  const seconds = secondsSince(instant);
  return seconds < 5 ? "now" : `${duration(Math.max(10, seconds))} ago`.replace(/^(\d+ (?:h|min)) \d+ (?:min|s)/, "$1");
}

export function until(instant) {
  if (!instant) return "–";
  const seconds = -secondsSince(instant);
  return seconds <= 0 ? "now" : `in ${duration(Math.max(10, seconds))}`.replace(/^(in \d+ (?:h|min)) \d+ (?:min|s)/, "$1");
}

export function clock(instant) {
  return new Date(instant).toLocaleTimeString("en-GB");
}

export function moment(instant) {
  return instant ? new Date(instant).toLocaleString("en-GB") : "–";
}

/** What to give `dray` for it: with its type where it was imported, and as one word of a shell. */
export function asArgument({ type, reference }) {
  const short = shortReference(reference).endsWith("…") ? reference : shortReference(reference);
  const typed = type === "custom" && !short.startsWith("custom:") ? `custom:${short}` : short;
  return /^[\w./:@+-]+$/.test(typed) ? typed : `'${typed.replaceAll("'", "'\\''")}'`;
}

/** As people write it: docker.io/library/debian:12 is debian:12. The whole stands in the title. */
export function shortReference(reference) {
  return reference.replace(/^docker\.io\/(library\/)?/, "").replace(/@sha256:([0-9a-f]{12})[0-9a-f]{52}$/, "@sha256:$1…");
}
