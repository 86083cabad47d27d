// Hostlists as Slurm writes them, `nid[001-128,200],login1`, to names and back: the same names in
// the same order as the services' own, and never more of them than allowed.

export const MOST_NAMES = 100000;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,252}$/;
const TEXT = /[A-Za-z0-9_.-]+/y;
const RANGE = /([0-9]{1,18})(?:-([0-9]{1,18}))?/y;
const LAST_NUMBER = /^(.*?)([0-9]{1,18})([^0-9]*)$/s;

/** A hostlist that cannot be read; the message says where. */
export class HostlistError extends Error {}

class Reader {
  #text;
  #left;
  #at = 0;
  #names = new Set();

  constructor(text, most) {
    this.#text = text;
    this.#left = BigInt(most);
  }

  read() {
    for (;;) {
      this.#entry();
      if (this.#at === this.#text.length) return [...this.#names];
      this.#at += 1;
    }
  }

  #entry() {
    const begun = this.#at;
    const parts = [];
    while (this.#at < this.#text.length && this.#text[this.#at] !== ",") {
      parts.push(this.#text[this.#at] === "[" ? this.#bracket() : this.#literal());
    }
    if (!parts.length) throw this.#wrong("a name is missing");
    this.#left -= parts.reduce((count, part) => count * part.count, 1n);
    if (this.#left < 0n) throw this.#wrong("this comes to too many names", begun);
    let names = [""];
    for (const part of parts) {
      const texts = [...part.texts()];
      names = names.flatMap((name) => texts.map((text) => name + text));
    }
    for (const name of names) {
      if (!NAME.test(name)) throw this.#wrong(`'${name.slice(0, 64)}' is no name of a node`, begun);
      this.#names.add(name);
    }
  }

  #match(pattern) {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (found) this.#at = pattern.lastIndex;
    return found;
  }

  #literal() {
    const found = this.#match(TEXT);
    if (!found) throw this.#wrong(`'${this.#text[this.#at]}' is in no name of a node`);
    return { count: 1n, texts: () => [found[0]] };
  }

  #bracket() {
    const closed = this.#text.indexOf("]", this.#at);
    if (closed < 0) throw this.#wrong("'[' without its ']'");
    this.#at += 1;
    const ranges = [this.#range()];
    while (this.#at !== closed) {
      if (this.#text[this.#at] !== ",") throw this.#wrong("write numbers and ranges, as in [1-4,7]");
      this.#at += 1;
      ranges.push(this.#range());
    }
    this.#at += 1;
    return {
      count: ranges.reduce((count, { low, high }) => count + high - low + 1n, 0n),
      * texts() {
        for (const { low, high, width } of ranges) {
          for (let number = low; number <= high; number += 1n) yield String(number).padStart(width, "0");
        }
      },
    };
  }

  #range() {
    const found = this.#match(RANGE);
    if (!found) throw this.#wrong("a number is missing, as in [1-4,7]");
    const low = BigInt(found[1]), high = BigInt(found[2] ?? found[1]);
    if (high < low) throw this.#wrong(`${found[0]} runs backwards`);
    return { low, high, width: found[1].length };
  }

  #wrong(problem, at = this.#at) {
    const near = this.#text.slice(Math.max(0, at - 10), at + 20);
    return new HostlistError(`${problem} (character ${at + 1}, near '${near}')`);
  }
}

/** The names, each once, in the order of the text. */
export function expand(text, most = MOST_NAMES) {
  if (!text.trim()) throw new HostlistError("there is no name in it");
  return new Reader(text.trim(), most).read();
}

/** A short hostlist of these names: the last number of each is put into brackets. */
export function fold(names) {
  const groups = new Map();
  for (const name of names) {
    const [, head, digits, tail] = LAST_NUMBER.exec(name) ?? [null, name, null, ""];
    const key = `${head}\u0000${tail}\u0000${digits === null ? "" : "#"}`;
    if (!groups.has(key)) groups.set(key, { head, tail, numbers: [] });
    if (digits !== null) groups.get(key).numbers.push(digits);
  }
  return [...groups.values()].map(folded).join(",");
}

function folded({ head, tail, numbers }) {
  if (numbers.length < 2) return `${head}${numbers[0] ?? ""}${tail}`;
  const runs = [];
  for (const digits of numbers.toSorted((one, other) => one.length - other.length || (one < other ? -1 : 1))) {
    const last = runs.at(-1);
    if (last?.high === digits) continue;
    if (last && String(BigInt(last.high) + 1n).padStart(last.low.length, "0") === digits) last.high = digits;
    else runs.push({ low: digits, high: digits });
  }
  const ranges = runs.map(({ low, high }) => (low === high ? low : `${low}-${high}`));
  return `${head}[${ranges.join(",")}]${tail}`;
}
