// Asks the gateway. Who asks is in the header, never in a URL: those are kept in logs.

import { setClock } from "./format.js";
import { token } from "./session.js";

const API = "/api/v1";
const PATIENCE_MS = 10000;

/** What the gateway said no with, as RFC 9457 tells it. */
export class Refused extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? problem.title ?? `the gateway answered ${status}`);
    this.status = status;
    this.code = problem.code ?? "unknown";
    this.retryAfter = retryAfter;
  }
}

export function headers() {
  return token() ? { Authorization: `Bearer ${token()}` } : {};
}

export async function refusalOf(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch { /* a proxy's page: the status says enough */ }
  return new Refused(response.status, problem, Number(response.headers.get("Retry-After")) || null);
}

/** `ask("GET", "/queue", {system: "x"})`: the answer's JSON, null where there is none. */
export async function ask(method, path, query = {}, body = undefined) {
  const known = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = known.length ? `?${new URLSearchParams(known)}` : "";
  const options = { method, headers: headers(), cache: "no-cache", signal: AbortSignal.timeout(PATIENCE_MS) };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const response = await fetch(`${API}${path}${search}`, options);
  // Right to the second, and told with the very first answer.
  setClock(response.headers.get("Date"));
  if (!response.ok) throw await refusalOf(response);
  return response.status === 204 ? null : response.json();
}

export const get = (path, query) => ask("GET", path, query);
