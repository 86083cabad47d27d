// What the fields of a pull mean for whoever waits for it. Pure: no page is touched here.

import { age, bytes, percent, roughAge, secondsSince } from "../format.js";
import { UNDER_WAY } from "./state.js";

const LONGEST_HONEST_SECONDS = 86400;

export const isUnderWay = (pull) => UNDER_WAY.includes(pull.state);

export const pathOf = (pull) => `#/pulls/${encodeURIComponent(pull.id)}`;

/** Why nothing moves, or an empty text. A failure in a pull under way is one that is tried again. */
export function waitsFor(pull) {
  if (!isUnderWay(pull)) return "";
  if (pull.failure) return `tried again soon: ${pull.failure.message}`;
  if (pull.progress?.waiting) return pull.progress.waiting;
  if (pull.state === "INIT") return "waits for a converter";
  if (pull.state === "TRANSFER" && pull.progress?.stage !== "TRANSFER") return "waits for a distributor";
  return "";
}

/** Seconds until the bytes of this state are done; null where that would be a guess. */
export function secondsLeft(pull) {
  const progress = pull.progress;
  if (!isUnderWay(pull) || !progress || progress.waiting || progress.stage !== pull.state) return null;
  if (!(progress.rate > 0) || progress.done >= progress.total) return null;
  const seconds = (progress.total - progress.done) / progress.rate;
  return seconds < LONGEST_HONEST_SECONDS ? seconds : null;
}

/** "1.2 GB of 3.4 GB · 85 MB/s · about 26 s left", as far as it is known. */
export function progressWords(pull) {
  const progress = pull.progress;
  if (!progress?.total) return "";
  const left = secondsLeft(pull);
  const words = [`${bytes(progress.done)} of ${bytes(progress.total)}`];
  if (progress.rate > 0 && progress.done < progress.total && !progress.waiting) words.push(`${bytes(progress.rate)}/s`);
  if (left !== null) words.push(`about ${age(Math.ceil(left))} left`);
  return words.join(" · ");
}

/** The same where there is little room: "26 s left", or else "35 %". */
export function briefWords(pull) {
  const progress = pull.progress;
  if (!progress?.total) return "";
  const left = secondsLeft(pull);
  return left === null ? percent(progress.done, progress.total) : `${roughAge(Math.ceil(left))} left`;
}

/** Since it was asked for; of one that ended: since then. */
export const secondsOld = (pull) => secondsSince(isUnderWay(pull) ? pull.requested_at : pull.updated_at);

const ORDER = [...UNDER_WAY, "FAILURE", "READY", "EXPIRING", "EXPIRED"];
const byId = (one, other) => (one.id < other.id ? -1 : 1);
const byAge = (one, other) => Date.parse(one.requested_at) - Date.parse(other.requested_at) || byId(one, other);
/** Whoever still waits comes before what ended. */
const byLife = (one, other) => isUnderWay(other) - isUnderWay(one);

export const SORTS = {
  oldest: { title: "oldest first", compare: (one, other) => byLife(one, other) || byAge(one, other) },
  newest: { title: "newest first", compare: (one, other) => byLife(one, other) || byAge(other, one) },
  state: { title: "by state", compare: (one, other) => ORDER.indexOf(one.state) - ORDER.indexOf(other.state) || byAge(one, other) },
};

/** Whether all words occur in what a row shows. */
export function matches(pull, words) {
  if (words.length === 0) return true;
  const text = [pull.reference, pull.system, pull.requested_by, pull.state, pull.failure?.code, pull.failure?.message, pull.progress?.waiting]
    .join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}
