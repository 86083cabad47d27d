// The one sentence that an operator came for, and where each worry leads. Pure.

import { duration, number } from "../format.js";

const WORKERS = { INIT: "a converter", TRANSFER: "a distributor" };
const LEADS_TO = {
  no_converter: "queues",
  no_distributor: "queues",
  dead_letters: "queues",
  outbox_stuck: "queues",
  gateway_behind: "queues",
  bus_away: "queues",
  pulls_failing: "pulls?state=FAILURE",
  long_waits: "pulls",
  registry_waits: "pulls",
  staging_failed: "jobs",
  nodes_lost: "nodes",
  image_directory_low: "storage",
};
const FOR_ADMINS = new Set(["queues", "storage"]);

/** The page that shows what a worry is about; null: there is none for whoever looks. */
export function pathOfWorry({ code }, admin) {
  const page = LEADS_TO[code];
  return page && (admin || !FOR_ADMINS.has(page)) ? `#/${page}` : null;
}

/** Coarser than elsewhere: a sentence should not change each second. */
function roughly(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.floor(seconds / 10)) * 10} s`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : duration(seconds);
}

/** `{tone, text}`: is anybody waiting, and for what. */
export function verdict({ worries, stages, jobs }) {
  const critical = worries.find(({ level }) => level === "critical");
  if (critical) {
    const users = stages.some(({ pulls }) => pulls > 0) ? "Users are waiting" : "Users cannot pull";
    return { tone: "bad", text: `${users}: ${inASentence(critical.message)}.` };
  }
  const waiting = stages.some((stage) => stage.waiting > 0);
  const sentence = [pullsSentence(stages), waiting ? "" : jobsSentence(jobs)].filter(Boolean).join(" ");
  if (sentence) return { tone: worries.length ? "warn" : "work", text: sentence };
  return worries.length
    ? { tone: "warn", text: "Nobody is waiting, but something needs a look." }
    : { tone: "good", text: "Nobody is waiting." };
}

/** A worry's message says what is so, then a colon, then what to do. */
function inASentence(message) {
  const fact = message.split(/:\s|\.\s|\.$/, 1)[0];
  return /^[A-Z][a-z]/.test(fact) ? fact[0].toLowerCase() + fact.slice(1) : fact;
}

function pullsSentence(stages) {
  const all = stages.reduce((sum, { pulls }) => sum + pulls, 0);
  if (all === 0) return "";
  const are = all === 1 ? "One pull is under way" : `${number(all)} pulls are under way`;
  const held = stages.filter(({ waiting }) => waiting > 0);
  if (held.length === 0) return `${are}, and ${all === 1 ? "it is" : "all are"} being worked on.`;
  const longest = held.reduce((one, other) => (other.oldest_seconds > one.oldest_seconds ? other : one));
  const waiting = held.reduce((sum, stage) => sum + stage.waiting, 0);
  const worker = ({ state }) => WORKERS[state] ?? "a worker";
  const seconds = roughly(longest.oldest_seconds);
  if (waiting === 1) return `${are}; ${all === 1 ? "it" : "one"} has waited ${seconds} for ${worker(longest)}.`;
  const [first, ...others] = held.map((stage) => [stage.waiting, worker(stage)]);
  const whom = [`${number(first[0])} ${first[0] === 1 ? "waits" : "wait"} for ${first[1]}`, ...others.map(([count, whose]) => `${number(count)} for ${whose}`)];
  return `${are}; ${whom.join(" and ")}, the oldest for ${seconds}.`;
}

function jobsSentence(jobs) {
  if (!jobs?.pending) return "";
  const nodes = jobs.pending === 1 ? "One node is" : `${number(jobs.pending)} nodes are`;
  return `${nodes} being given images.`;
}
