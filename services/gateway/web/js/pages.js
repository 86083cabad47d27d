// Which pages there are, and under which address. A page is `{name, title, path, open}`;
// `open(holder, {store, who, parameters, query})` fills the holder and returns `{update(store), close()}`.

import { image } from "./pages/image.js";
import { images } from "./pages/images.js";
import { job } from "./pages/job.js";
import { jobs } from "./pages/jobs.js";
import { nodes } from "./pages/nodes.js";
import { overview } from "./pages/overview.js";
import { pull } from "./pages/pull.js";
import { pulls } from "./pages/pulls.js";
import { queues } from "./pages/queues.js";
import { storage } from "./pages/storage.js";

export const PAGES = [overview, pulls, pull, queues, jobs, job, nodes, images, image, storage];

/**
 * The page of an address, what its `:names` stand for (the last one may hold slashes), and what
 * stands behind its question mark.
 */
export function pageOf(address) {
  const [path, search = ""] = address.split("?", 2);
  const query = new URLSearchParams(search);
  for (const page of PAGES) {
    const names = [];
    const pattern = page.path.replace(/:(\w+)/g, (_, name) => { names.push(name); return "\u0000"; });
    const parts = pattern.split("\u0000").map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const inner = parts.map((part, n) => (n === 0 ? part : (n === parts.length - 1 ? "(.+)" : "([^/]+)") + part)).join("");
    const found = new RegExp(`^${inner}$`).exec(path);
    if (found) return { page, query, parameters: Object.fromEntries(names.map((name, n) => [name, decoded(found[n + 1])])) };
  }
  return { page: overview, query, parameters: {} };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a percent sign that somebody typed
  }
}
