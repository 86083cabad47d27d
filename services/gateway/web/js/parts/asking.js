// Asks the gateway again and again while the page is looked at.

/**
 * Calls `ask` at once and then `pause` ms (or as many as it says) after each answer; `failed(problem)` when it throws.
 * Gives `{now(), close()}`. Nobody asks for a tab that is hidden.
 */
export function repeatedly(ask, pause, failed) {
  let timer = null, closed = false, running = false;
  const round = async () => {
    clearTimeout(timer);
    if (running) return;
    running = true;
    try {
      if (!document.hidden) await ask();
    } catch (problem) {
      if (!closed) failed(problem);
    } finally {
      running = false;
    }
    if (!closed) timer = setTimeout(round, typeof pause === "function" ? pause() : pause);
  };
  const shown = () => { if (!document.hidden) round(); };
  document.addEventListener("visibilitychange", shown);
  round();
  return {
    now: round,
    close() {
      closed = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", shown);
    },
  };
}
