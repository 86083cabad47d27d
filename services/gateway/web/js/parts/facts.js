// Pairs of a name and a value, as an instrument has them on its face.

import { make, say } from "../dom.js";

/** `facts.set({"Nodes": "12", "Image": element})`; what is null is left out. */
export function factList(className = "") {
  const made = make("dl", { className: `facts ${className}` });
  const rows = new Map();
  made.set = (pairs) => {
    for (const [name, value] of Object.entries(pairs)) {
      let row = rows.get(name);
      if (!row) {
        row = make("div", {}, make("dt", {}, name), make("dd"));
        rows.set(name, row);
        made.append(row);
      }
      row.hidden = value === null || value === undefined;
      if (value instanceof Node) {
        if (row.lastElementChild.firstElementChild !== value) row.lastElementChild.replaceChildren(value);
      } else if (!row.hidden) say(row.lastElementChild, String(value));
    }
  };
  return made;
}

/** Names each cell of a row by its column, for screens that are too narrow for columns. */
export function named(row, columns) {
  [...row.children].forEach((cell, n) => { cell.dataset.column = columns[n].title; });
  return row;
}

/** A button that puts a text on the clipboard, and says so. */
export function copyButton(name, textOf) {
  const button = make("button", { type: "button", className: "small", "aria-label": name }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await copy(textOf());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it by hand: the browser does not allow it";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return button;
}

/** Over plain http browsers have no clipboard for pages, but still copy what is selected. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const focused = document.activeElement;
  const area = make("textarea", { className: "hidden", value: text, "aria-hidden": "true" });
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  focused?.focus({ preventScroll: true });
  if (!copied) throw new Error("nothing was copied");
  return undefined;
}

/** What is only for some: said calmly, with what to do. */
export function refusal(problem) {
  if (problem.status === 401) return "Sign in to see this.";
  if (problem.status === 403) return "This is for admins of the site.";
  if (problem.status === 404) return "There is nothing of this name that you may see.";
  return `The gateway did not answer: ${problem.message}`;
}
