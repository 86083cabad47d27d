// What a node looks like in a grid, for each letter: a colour and a shape, since colour alone tells
// some people nothing. Drawn once for each size and theme, then copied.

/** Of a job's nodes, in the order of a legend. */
export const STAGING = [
  { letter: "S", name: "staged", tone: "good", shape: "full" },
  { letter: "I", name: "in place", tone: "good", shape: "ring", hint: "has the images, straight from the shared directory" },
  { letter: "P", name: "staging", tone: "work", shape: "dot" },
  { letter: "F", name: "failed", tone: "bad", shape: "cross" },
  { letter: "L", name: "lost", tone: "lost", shape: "corner", hint: "its agent is not heard any more" },
  { letter: "R", name: "released", tone: "wait", shape: "low", hint: "had them, until the job ended" },
];

/** Of a system's nodes. */
export const AGENTS = [
  { letter: "B", name: "busy", tone: "work", shape: "full", hint: "alive, with images mounted" },
  { letter: "A", name: "idle", tone: "good", shape: "dot", hint: "alive, nothing mounted" },
  { letter: "L", name: "lost", tone: "lost", shape: "corner", hint: "not heard for some heartbeats" },
];

const SMALLEST_SHAPE = 4;

/** Draws one cell of `size` device pixels at 0, 0. */
function draw(context, { tone, shape }, size, colours) {
  const gap = size >= 6 ? Math.max(1, Math.round(size / 9)) : size > 3 ? 1 : 0;
  const side = size - gap;
  const { fill, ink, card } = colours(tone);
  const block = (x, y, width, height, colour) => { context.fillStyle = colour; context.fillRect(x, y, width, height); };
  if (size < SMALLEST_SHAPE) return block(0, 0, side, side, fill);
  const third = Math.max(1, Math.round(side / 3.2));
  const stroke = (colour, width, ...lines) => {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    for (const [x, y, right, low] of lines) { context.moveTo(x, y); context.lineTo(right, low); }
    context.stroke();
  };
  if (shape === "full") return block(0, 0, side, side, fill);
  if (shape === "low") return block(0, side - third, side, third, fill);
  if (shape === "dot") {
    context.globalAlpha = 0.22;
    block(0, 0, side, side, fill);
    context.globalAlpha = 1;
    const dot = Math.max(2, Math.round(side * 0.42)), at = Math.floor((side - dot) / 2);
    return block(at, at, dot, dot, fill);
  }
  if (shape === "ring") {
    block(0, 0, side, side, fill);
    const wall = Math.max(1, Math.round(side / 5));
    return block(wall, wall, side - 2 * wall, side - 2 * wall, card);
  }
  if (shape === "cross") {
    block(0, 0, side, side, fill);
    const inner = side * 0.24, far = side - inner;
    return stroke(side < 7 ? ink : card, Math.max(1, side / 7), [inner, inner, far, far], [inner, far, far, inner]);
  }
  // The ink, which is stronger than the fill: half a cell has to be found among thousands.
  context.fillStyle = ink;
  context.beginPath();
  for (const [x, y] of [[0, 0], [side, side], [0, side]]) context.lineTo(x, y);
  return context.fill();
}

/** The colours of the theme, read once: asking for a style is dear. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  const card = read("--card");
  return (tone) => ({ fill: read(`--${tone}-fill`), ink: read(`--${tone}`), card });
}

function canvasOf(size) {
  const made = document.createElement("canvas");
  made.width = made.height = size;
  return made;
}

/** Each kind's cell, ready to be copied: `sprites.get(letter)`. */
export function sprites(kinds, size) {
  const colours = palette();
  return new Map(kinds.map((kind) => {
    const made = canvasOf(size);
    draw(made.getContext("2d"), kind, size, colours);
    return [kind.letter, made];
  }));
}

/** Calls back when the colours have changed; gives what ends that. */
export function onTheme(callback) {
  const observer = new MutationObserver(callback);
  observer.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", callback);
  return () => { observer.disconnect(); system.removeEventListener("change", callback); };
}
