// The frame: which page is shown, who looks, which system, how fresh it all is.

import { get } from "./api.js";
import { make, say, sayWithCode } from "./dom.js";
import { byGateway, clock, now } from "./format.js";
import { PAGES, pageOf } from "./pages.js";
import { forget, isAdmin, keep, takeFromAddress, token } from "./session.js";
import { Store } from "./store.js";

const AGAIN_MS = 3000;
const NOBODY = { name: "nobody", uid: null, gids: [], scopes: [], via: "nobody" };

const at = (id) => document.getElementById(id);
const main = at("main");
const store = new Store((problem) => signedOut(problem, true));
let shown = null;
let title = "";
let who = NOBODY;
let begun = 0;

function freshness() {
  const { state, since, problem } = store.freshness;
  const words = {
    connecting: since ? "connecting again…" : "connecting…",
    live: "live",
    polling: "live, by asking every 3 s",
    stale: `stale: as of ${since ? clock(byGateway(since)) : "never"} · ${problem}`,
    unreached: `not reached yet: ${problem}`,
  };
  const chip = at("freshness");
  chip.dataset.state = state;
  say(chip, words[state]);
  document.body.classList.toggle("is-stale", state === "stale" || state === "unreached");
  chip.title = words[state];
}

/** How many worries there are is read from a tab that nobody has opened, too. */
function head() {
  const worries = store.overview?.worries.length ?? 0;
  const wanted = `${worries ? `(${worries}) ` : ""}${title}`;
  if (document.title !== wanted) document.title = wanted;
}

/** Closes the page that is shown: nothing of it stays. */
function leave() {
  shown?.close?.();
  shown = null;
  main.replaceChildren();
}

/** Shows the page that the address names. */
function route() {
  takeFromAddress();
  const { page, parameters, query } = pageOf(location.hash.replace(/^#/, "") || "/");
  leave();
  const holder = make("div", { className: `page page-${page.name}` });
  main.replaceChildren(holder);
  title = page.path === "/" ? "Dray" : `${page.title} · Dray`;
  head();
  for (const link of at("nav").children) {
    if (link.dataset.page === page.name || link.dataset.page === page.under) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  shown = page.open(holder, { store, who, parameters, query }) ?? {};
  shown.update?.(store);
}

function nav() {
  const links = PAGES.filter((page) => page.inMenu && (!page.adminOnly || isAdmin(who)));
  at("nav").replaceChildren(...links.map((page) =>
    make("a", { href: `#${page.path}`, dataset: { page: page.name } }, page.title)));
}

async function systems() {
  const { items } = await get("/systems");
  const choice = at("system");
  const before = choice.value;
  choice.replaceChildren(make("option", { value: "" }, "all"), ...items.map((name) => make("option", { value: name }, name)));
  choice.value = items.includes(before) ? before : "";
  at("system-choice").hidden = items.length < 2;
}

function follow() {
  store.start(at("system").value || null, who.via !== "nobody");
}

function signIn(problem = "") {
  at("notice").hidden = true;
  say(at("sign-in-problem"), problem);
  if (at("sign-in").open) return;
  at("token").value = "";
  at("sign-in").showModal();
}

/**
 * A token that ended, or was taken back. Whoever brought it hears of it at once; a screen that shows
 * the page goes on with what all may see, and says so.
 */
function signedOut(problem, isLooking = false) {
  if (!token()) return signIn(problem.message);
  forget();
  if (!isLooking) return begin(`You are signed out: ${problem.message}`);
  const asOf = clock(now());
  return begin().then(() => {
    if (at("sign-in").open) return;
    sayWithCode(at("notice-words"), `Signed out at ${asOf}: ${problem.message}. This is what everybody may see.`);
    at("notice").hidden = false;
  });
}

/** Whoever it is now: all that was shown for somebody else is gone before anything is asked. */
async function begin(reason = "") {
  begun += 1;
  const turn = begun;
  leave();
  store.clear();
  who = NOBODY;
  let problem = null;
  try {
    const told = await get("/whoami");
    if (turn !== begun) return;
    who = told;
  } catch (caught) {
    if (turn !== begun) return;
    problem = caught;
  }
  if (problem?.status === 401 && token()) return signedOut(problem);
  if (problem !== null && problem.status !== 401 && problem.status !== 403) {
    store.unreached(problem);
    main.replaceChildren(make("p", { className: "empty" },
      `The gateway is not reached: ${problem.message}. It is tried again every few seconds.`));
    setTimeout(() => { if (turn === begun) begin(reason); }, AGAIN_MS);
    return;
  }
  say(at("who"), who.via === "nobody" ? "Sign in" : `${who.name} · sign out`);
  nav();
  follow();
  route();
  if (reason || problem) signIn(reason || problem.message);
  systems().catch(() => { at("system-choice").hidden = true; });
}

at("who").addEventListener("click", () => {
  if (who.via === "nobody") return signIn();
  forget();
  return begin();
});
at("sign-in").addEventListener("close", () => {
  const given = at("token").value.trim();
  at("token").value = "";
  if (at("sign-in").returnValue !== "in" || !given) return;
  keep(given);
  begin();
});
at("notice-sign-in").addEventListener("click", () => signIn());
at("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("dray.theme", root.dataset.theme);
});
at("system").addEventListener("change", () => { follow(); route(); });
at("skip").addEventListener("click", (event) => {
  // Its address is no page's.
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => {
  const before = token();
  takeFromAddress();
  if (token() !== before) {
    at("notice").hidden = true;
    return begin();
  }
  route();
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
  return undefined;
});
store.listen(() => { freshness(); head(); shown?.update?.(store); });
takeFromAddress();
begin();
