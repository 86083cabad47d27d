// A bar whose pieces are in proportion: each has its tone, bad ones a pattern as well, and the
// whole says in words what it shows.

import { keyed, make } from "../dom.js";

/** `bar.update(pieces, words)`; pieces: `[{key, part, tone, title, faint, hatched}]`. */
export function stackedBar(className = "") {
  const made = make("div", { className: `bar-stack ${className}`, role: "img" });
  made.update = (pieces, words) => {
    made.setAttribute("aria-label", words);
    made.title = words;
    keyed(made, pieces.filter(({ part }) => part > 0), ({ key }) => key, () => {
      const piece = make("i");
      piece.update = ({ part, tone, title, faint, hatched }) => {
        piece.style.setProperty("flex-grow", part);
        piece.dataset.tone = tone;
        piece.classList.toggle("faint", faint ?? false);
        piece.classList.toggle("hatched", hatched ?? false);
        if (title) piece.title = title;
      };
      return piece;
    });
  };
  return made;
}
