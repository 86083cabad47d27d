// How a job stands: in a word, and as a bar of its nodes' states.

import { number } from "../format.js";
import { STAGING } from "./cells.js";

const STATES = { S: "STAGED", I: "IN_PLACE", P: "PENDING", F: "FAILED", L: "LOST", R: "RELEASED" };

const count = (job, letter) => job.counts[STATES[letter]] ?? 0;

/** Nodes that have the images now. */
export const having = (job) => count(job, "S") + count(job, "I");

/** `{word, tone}` of a job. */
export function standing(job) {
  if (job.released_at) return { word: "released", tone: "wait" };
  if (!job.node_count) return { word: "reserved", tone: "wait" };
  const troubled = count(job, "F") + count(job, "L");
  if (count(job, "P")) return troubled ? { word: "staging, with trouble", tone: "warn" } : { word: "staging", tone: "work" };
  return troubled ? { word: "in trouble", tone: "bad" } : { word: "ready", tone: "good" };
}

/** Pieces and words of a `stackedBar`. */
export function nodesBar(job) {
  const kinds = STAGING.map((kind) => ({ ...kind, nodes: count(job, kind.letter) })).filter(({ nodes }) => nodes);
  return {
    words: kinds.map(({ name, nodes }) => `${number(nodes)} ${name}`).join(", ") || "no nodes yet",
    pieces: kinds.map(({ letter, name, nodes, tone }) => ({
      key: letter, part: nodes, tone, title: `${number(nodes)} ${name}`,
      faint: letter === "P" || letter === "R", hatched: letter === "F" || letter === "L" || letter === "I",
    })),
  };
}
