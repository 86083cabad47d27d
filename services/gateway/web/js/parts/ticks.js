// Round places for the marks of an axis, and how values of a unit are written there.

import { bytes, duration, number } from "../format.js";

const ROUND_SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
const MINUTE_MS = 60000;
const ROUND_MINUTES = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440];

/** Values of `unit`: bytes, seconds, or whatever is counted. */
export function written(unit) {
  if (unit === "bytes") return bytes;
  if (unit === "seconds") return duration;
  return (value) => (value === null || value === undefined ? "–" : value < 10 && value % 1 ? value.toFixed(1) : number(value));
}

/** As short as an axis needs it: without the ".0" and the second unit. */
export function writtenShort(unit) {
  if (unit === "bytes") return (value) => (value ? bytes(value).replace(".0 ", " ") : "0");
  if (unit !== "seconds") return written(unit);
  return (value) => {
    if (value < 60 || value % 60) return value ? `${value} s` : "0";
    return value < 7200 ? `${value / 60} min` : `${value / 3600} h`;
  };
}

/** From 0 to at least `most` in round steps, about `count` of them. */
export function valueTicks(most, unit, count) {
  const least = (most || 1) / count;
  let step = ROUND_SECONDS.find((seconds) => unit === "seconds" && least > 0.5 && seconds >= least);
  if (step === undefined) {
    const power = 10 ** Math.floor(Math.log10(least));
    step = [1, 2, 5, 10].find((factor) => factor * power >= least * 0.999) * power;
  }
  if (unit !== "bytes" && unit !== "seconds") step = Math.max(1, Math.round(step));
  const ticks = [0];
  while (ticks.at(-1) < (most || 1)) ticks.push(step * ticks.length);
  return ticks;
}

/** Round times of day between two moments, in the time zone of whoever looks. */
export function timeTicks(from, to, count) {
  const wanted = (to - from) / MINUTE_MS / count;
  const step = (ROUND_MINUTES.find((minutes) => minutes >= wanted) ?? 1440) * MINUTE_MS;
  const zone = new Date(to).getTimezoneOffset() * MINUTE_MS;
  const ticks = [];
  for (let at = Math.ceil((from - zone) / step) * step + zone; at <= to; at += step) ticks.push(at);
  return ticks;
}

export function hourAndMinute(at) {
  return new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}
