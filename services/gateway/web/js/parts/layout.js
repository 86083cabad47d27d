// Where each node of a grid stands: in the order of names, so that neighbours are neighbours; what
// begins alike (a rack, a cabinet, a kind of node) begins a row of its own, and rows are as long as
// people count.

const LARGEST_CELL = 20;
const SMALLEST_CELL = 3;
const LENGTHS = [4, 5, 8, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80, 100, 120, 125, 150, 160, 175, 200, 225, 250, 275, 300, 350, 400, 450, 500, 600, 800, 1000];
const MOST_GROUPS = 64;
const MEAN_GROUP = 16;
const BETWEEN_GROUPS = 5;
// Above the first row: half a line of its label.
const TOP = 5;

/** The name up to the last of so many numbers in it. */
function headOf(name, numbers) {
  const found = [...name.matchAll(/[0-9]+/g)].at(-numbers);
  return found ? name.slice(0, found.index) : name;
}

/** Runs of neighbours whose names begin alike: `[{start, length}]`. */
export function groups(names) {
  for (let numbers = 1; numbers <= 4; numbers += 1) {
    const made = [];
    let last = null;
    for (let n = 0; n < names.length && made.length <= MOST_GROUPS; n += 1) {
      const key = headOf(names[n], numbers);
      if (key === last) made.at(-1).length += 1;
      else made.push({ start: n, length: 1 });
      last = key;
    }
    const fewest = Math.max(1, Math.min(MOST_GROUPS, names.length / MEAN_GROUP));
    if (made.length <= fewest) return made;
  }
  return [{ start: 0, length: names.length }];
}

function rowLength(most, made) {
  const usual = made[0].length;
  if (made.length > 1 && usual <= 1000) {
    const parts = Math.ceil(usual / most);
    if (usual % parts === 0) return usual / parts;
  }
  return LENGTHS.findLast((length) => length <= most) ?? Math.max(1, most);
}

/**
 * Fits nodes into `width` and, as far as cells stay visible, `height`:
 * `{cell, columns, rows: [{start, length, y}], height}`.
 */
export function arrange(names, width, height) {
  const made = groups(names);
  const smallest = names.length > 20000 ? SMALLEST_CELL : SMALLEST_CELL + 2;
  for (let cell = LARGEST_CELL; ; cell -= 1) {
    const columns = rowLength(Math.floor(width / cell), made);
    const rows = [];
    let y = TOP;
    for (const group of made) {
      for (let n = 0; n < group.length; n += columns) {
        rows.push({ start: group.start + n, length: Math.min(columns, group.length - n), y });
        y += cell;
      }
      y += BETWEEN_GROUPS;
    }
    if (y <= height || cell === smallest) return { cell, columns, rows, height: y };
  }
}

/** The row that a node stands in. */
export function rowOf({ rows }, node) {
  let low = 0, high = rows.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (rows[middle].start <= node) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The node at a place, or null. */
export function nodeAt({ rows, cell }, x, y) {
  const row = rows.find((each) => y >= each.y && y < each.y + cell);
  const column = Math.floor(x / cell);
  return row && column >= 0 && column < row.length ? row.start + column : null;
}
