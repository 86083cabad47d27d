// Elements. All text is set as text: names and messages come from strangers, and are never HTML.

/** An element: `make("td", {className: "num", title: "…"}, "text", otherElement)`. */
export function make(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (value === false && typeof made[key] !== "boolean") continue;
    if (key === "className") made.className = value;
    else if (key === "dataset") Object.assign(made.dataset, value);
    else if (key === "style") for (const [at, to] of Object.entries(value)) made.style.setProperty(at, to);
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && key !== "role" && !key.startsWith("aria")) made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** The same for SVG, whose attributes are all attributes. */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Sets text only where it differs, so that a selection and a screen reader are left in peace. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The same for a text in which commands stand between backticks, as messages have them. */
export function sayWithCode(element, text) {
  if (element.saidWithCode === text) return;
  element.saidWithCode = text;
  element.replaceChildren(...text.split(/(`[^`]+`)/).map((part) => (
    /^`.+`$/s.test(part) ? make("code", {}, part.slice(1, -1)) : part)));
}

/**
 * Makes the children of `parent` stand for `items`, in their order. A child lives as long as its
 * key, so that focus, selection and scrolling stay. `create(item)` gives an element with a method
 * `update(item)`; it is called each time.
 */
export function keyed(parent, items, keyOf, create) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const known = parent.keyedChildren ?? (parent.keyedChildren = new Map());
  const wanted = new Map(items.map((item) => [keyOf(item), item]));
  for (const [key, child] of known) {
    if (!wanted.has(key)) {
      child.remove();
      known.delete(key);
    }
  }
  let at = parent.firstElementChild;
  for (const [key, item] of wanted) {
    let child = known.get(key);
    if (!child) {
      child = create(item);
      known.set(key, child);
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
    child.update(item);
  }
  // An element that moves to another place loses the focus.
  if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

/** A table: `columns` are `{title, className, hint}`; rows go into its `body`. */
export function table(caption, columns) {
  const head = make("tr", {}, ...columns.map((column) =>
    make("th", { scope: "col", className: column.className, title: column.hint }, column.title)));
  const body = make("tbody");
  const made = make("div", { className: "table", tabIndex: 0, role: "region", "aria-label": caption },
    make("table", {}, make("caption", { className: "hidden" }, caption), make("thead", {}, head), body));
  made.body = body;
  return made;
}

/** A part of a page, with a heading; what belongs beside the heading comes in `beside`. */
export function section(title, ...children) {
  const heading = make("h2", {}, title);
  const beside = make("div", { className: "beside" });
  const made = make("section", { "aria-label": title }, make("div", { className: "heading" }, heading, beside), ...children);
  made.beside = beside;
  made.heading = heading;
  return made;
}
