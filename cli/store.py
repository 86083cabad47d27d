"""`dray store`: the pack store's state, and its cleaning and checking by hand."""

import threading
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from cli import show
from cli.errors import EXIT_FAILED, CliError, UsageError
from shared.config import load_settings
from shared.store.collect import CollectRules
from shared.store.collect import collect as collect_store
from shared.store.inventory import stored, what_it_holds
from shared.store.scrub import scrub as scrub_store
from shared.store.store import PackStore


class StoreInUseError(CliError):
    """A converter, or another command, does the same at the moment."""

    code = "store_in_use"


@dataclass(frozen=True, slots=True)
class Opened:
    """A store, and the rules for it."""

    store: PackStore
    rules: CollectRules


def opened(directory: Path | None, config: Path | None) -> Opened:
    settings = load_settings(config)
    root = directory or settings.store
    if not root.is_dir():
        raise UsageError(f"there is no pack store in {root}: name it with --store or --config")
    return Opened(PackStore(root), CollectRules.of(settings))


def status(place: Opened, *, json: bool) -> int:
    """Reads directories and recipes only."""
    root = place.store.root
    held: set[str] = set()
    recipes = 0
    for _, recipe in stored(root, "recipes"):
        found = what_it_holds(place.store, recipe)
        if found is not None:
            recipes += 1
            held |= {*found.packs, found.tables}
    counts: Counter[str] = Counter(recipes=recipes)
    for kind in ("packs", "tables"):
        for name, file in stored(root, kind):
            counts[kind] += 1
            counts["bytes"] += file.size
            counts["unheld_bytes"] += 0 if name in held else file.size
    damaged = root / "damaged"
    counts["damaged"] = len(list(damaged.iterdir())) if damaged.is_dir() else 0
    names = ("packs", "tables", "recipes", "bytes", "unheld_bytes", "damaged")
    if json:
        show.document({name: counts[name] for name in names})
        return 0
    packs, images = show.count(counts["packs"], "pack"), show.count(counts["recipes"], "image")
    tables = show.count(counts["tables"], "file")
    print(f"{packs} and {tables} of tables: {show.size(counts['bytes'])}")
    print(f"needed by {images}: all but {show.size(counts['unheld_bytes'])}")
    print(f"damaged, in {damaged}: {show.count(counts['damaged'], 'file')}")
    return 0


def collect(place: Opened, *, json: bool) -> int:
    done = collect_store(place.store, place.rules, threading.Event())
    if done is None:
        raise StoreInUseError("a converter is cleaning this store at the moment; try again later")
    if json:
        removed = {kind: done.removed[kind] for kind in ("packs", "tables", "recipes")}
        show.document({"removed": removed, "removed_bytes": done.removed_size, "bytes": done.size})
        return 0
    count = done.removed.total()
    print(f"removed {count} files, {show.size(done.removed_size)}; {show.size(done.size)} stay")
    return 0


def scrub(place: Opened, *, json: bool) -> int:
    before = _damaged(place.store.root)
    read = _read(scrub_store(place.store, 0.0))
    if read is None:
        raise StoreInUseError("a converter is reading this store at the moment; try again later")
    found = sorted(_damaged(place.store.root) - before)
    if json:
        show.document({"read_bytes": read, "damaged": list(found)})
    else:
        print(f"read {show.size(read)}, {len(found)} damaged files")
        print("".join(f"  {name}\n" for name in found), end="")
    return EXIT_FAILED if found else 0


def _read(steps: Generator[int, None, bool]) -> int | None:
    """How many bytes; None if that was another's."""
    read = 0
    try:
        while True:
            read += next(steps)
    except StopIteration as end:
        return read if end.value else None


def _damaged(root: Path) -> set[str]:
    directory = root / "damaged"
    return {path.name for path in directory.iterdir()} if directory.is_dir() else set()
