// The bus's queues and the dead letters, with replay.

import { ask, get } from "../api.js";
import { keyed, make, say, section, table } from "../dom.js";
import { age, number } from "../format.js";
import { repeatedly } from "../parts/asking.js";
import { confirmed } from "../parts/confirm.js";
import { refusal } from "../parts/facts.js";
import { lettersTable } from "../parts/letters.js";
import { isAdmin } from "../session.js";

const PAUSE_MS = 5000;
const ONCE_MORE = "An event that fails again comes back here. Replay when the cause is gone.";

const events = (count) => (count === 1 ? "1 event" : `${number(count)} events`);

export const queues = {
  name: "queues",
  title: "Queues",
  path: "/queues",
  inMenu: true,
  adminOnly: true,
  open(holder, { who }) {
    holder.append(make("h1", {}, "Queues"));
    if (!isAdmin(who)) {
      holder.append(make("p", { className: "card" }, "The queues are for admins of the site. Sign in with an admin’s token to see them."));
      return {};
    }
    const depths = queuesPart();
    const dead = lettersPart();
    holder.append(depths, dead);
    return {
      update({ overview }) {
        depths.update(overview?.queues ?? []);
        dead.tick(overview?.dead_letters ?? null);
      },
      close: dead.close,
    };
  },
};

function queuesPart() {
  const rows = table("Work queues", [
    { title: "Queue" }, { title: "Waiting", className: "num", hint: "events that no consumer has taken" },
    { title: "Consumers", className: "num" }, { title: "Oldest", className: "num", hint: "how long the first of them has waited" },
  ]);
  rows.classList.add("queues");
  const empty = make("p", { className: "empty" }, "The queues are not known yet, or the bus cannot be reached.");
  const made = section("Work queues", rows, empty);
  made.update = (items) => {
    rows.hidden = items.length === 0;
    empty.hidden = items.length > 0;
    keyed(rows.body, items, ({ name }) => name, ({ name }) => {
      const [waiting, consumers, oldest] = [1, 2, 3].map(() => make("td", { className: "num" }));
      const word = make("span", { className: "about" });
      const row = make("tr", {}, make("td", {}, make("span", { className: "mono" }, name), word), waiting, consumers, oldest);
      row.update = (queue) => {
        say(waiting, number(queue.waiting));
        say(consumers, number(queue.consumers));
        say(oldest, queue.waiting === 0 || queue.oldest_seconds === null ? "–" : age(queue.oldest_seconds));
        say(word, queue.consumers === 0 ? "nobody takes its events" : "");
        word.classList.toggle(queue.waiting ? "bad" : "warn", queue.consumers === 0);
      };
      return row;
    });
  };
  return made;
}

function lettersPart() {
  const answer = make("p", { className: "answer", role: "status" });
  const empty = make("p", { className: "empty" });
  const byQueue = make("ul", { className: "by-queue" });
  const all = make("button", { type: "button" }, "Replay all");
  let counted = null;
  let shown = { items: [], total: 0 };

  /** Does it, says what came of it, and looks again. */
  const act = async (doing) => {
    try {
      say(answer, await doing());
      answer.classList.remove("bad");
    } catch (problem) {
      say(answer, `It was not done: ${problem.message}`);
      answer.classList.add("bad");
    }
    await asking.now();
  };
  const replayMany = (which) => act(async () => {
    const { replayed, left } = await ask("POST", "/admin/dead-letters/replay", {}, which);
    return `${events(replayed)} replayed; ${left ? `${events(left)} left.` : "none is left."}`;
  });
  const letters = lettersTable(
    (letter, name) => act(async () => {
      await ask("POST", `/admin/dead-letters/${encodeURIComponent(letter.id)}/replay`);
      return `${name} is in ${letter.queue} again.`;
    }),
    async (letter, name) => {
      const text = [`${name} of ${letter.queue} is removed for good: nobody will ever handle it.`, "What it was about stays as it is, until something else moves it on."];
      if (!await confirmed({ title: "Discard this event?", text, action: "Discard" })) return;
      await act(async () => {
        await ask("DELETE", `/admin/dead-letters/${encodeURIComponent(letter.id)}`);
        return `${name} is discarded.`;
      });
    },
  );
  const replayQueue = async (queue) => {
    const text = [`All dead letters of ${queue} go back to that queue, and its consumers get them once more.`, ONCE_MORE];
    if (await confirmed({ title: `Replay ${queue}?`, text, action: "Replay" })) await replayMany({ queue });
  };
  all.addEventListener("click", async () => {
    const text = [`${events(shown.total)} go back to the queues that they came from, and consumers get them once more.`, ONCE_MORE];
    if (await confirmed({ title: "Replay all dead letters?", text, action: "Replay all" })) await replayMany({});
  });

  const made = section("Dead letters",
    make("p", { className: "quiet about" }, "Events that no service could digest. Nothing else is held up by them; what they were about is."),
    answer, byQueue, letters, empty);
  made.beside.append(all);
  const show = (told) => {
    shown = { items: told.items, total: Math.max(told.total ?? 0, told.items.length) };
    const counts = new Map();
    for (const { queue } of shown.items) counts.set(queue, (counts.get(queue) ?? 0) + 1);
    keyed(byQueue, [...counts].map(([queue, count]) => ({ queue, count })), ({ queue }) => queue, ({ queue }) => {
      const many = make("b");
      const item = make("li", {}, make("span", { className: "mono" }, queue), many,
        make("button", { type: "button", className: "small", onclick: () => replayQueue(queue), "aria-label": `Replay all of ${queue}` }, "Replay these"));
      item.update = ({ count }) => say(many, `${shown.total > shown.items.length ? "at least " : ""}${number(count)}`);
      return item;
    });
    letters.update(shown.items);
    all.disabled = shown.total === 0;
    say(made.heading, shown.total ? `Dead letters: ${number(shown.total)}` : "Dead letters");
    say(empty, shown.items.length === 0 ? "There are none: each event found somebody who could digest it."
      : shown.total > shown.items.length ? `The first ${number(shown.items.length)} are shown.` : "");
    empty.hidden = empty.textContent === "";
  };
  const asking = repeatedly(async () => show(await get("/admin/dead-letters")), PAUSE_MS, (problem) => {
    empty.hidden = false;
    say(empty, refusal(problem));
  });
  made.tick = (count) => {
    // The stream knows first that one came or went.
    if (count !== null && counted !== null && count !== counted) asking.now();
    counted = count;
    letters.update(shown.items);
  };
  made.close = asking.close;
  return made;
}
