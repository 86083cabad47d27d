"""Removes from the pack store what nobody needs, and then what is needed least, until it fits.

Only recipes hold packs and tables. What none of them holds is removed when it has not been used for
the grace period: somebody may just be planning with it. Any number of builders, planners and
distributors may work meanwhile; collectors themselves take turns.
"""

import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from shared.config import Settings
from shared.image.errors import WorkCancelledError
from shared.models import Sha256
from shared.store.damage import prune_damaged
from shared.store.inventory import Kind, Stored, stored, what_it_holds
from shared.store.locks import release, remove_unless_used, try_lock
from shared.store.origins import forget_origin, forget_origins_without
from shared.store.stamps import forget_stamps
from shared.store.store import PackStore

LOCK = "collect"


@dataclass(frozen=True, slots=True)
class CollectRules:
    """In seconds and bytes. What was used within the grace period stays, whatever the limit."""

    grace: float = 86400.0
    keep_unused: float = 30 * 86400.0
    max_bytes: int | None = None
    """Of packs and tables."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        own = settings.housekeeping
        return cls(
            # A pull counts on the packs that it has found, as long as it runs.
            grace=max(own.grace, settings.converter.pull_timeout),
            keep_unused=own.keep_unused_days * 86400.0,
            max_bytes=own.max_bytes,
        )


@dataclass(slots=True)
class Collected:
    """What there is now, what was removed, and how many bytes that was."""

    files: Counter[Kind] = field(default_factory=Counter)
    size: int = 0
    removed: Counter[Kind] = field(default_factory=Counter)
    removed_size: int = 0

    def add(self, file: Stored) -> None:
        self.files[file.kind] += 1
        if file.kind != "recipes":
            self.size += file.size

    def remove(self, file: Stored) -> None:
        self.files[file.kind] -= 1
        self.removed[file.kind] += 1
        if file.kind != "recipes":
            self.size -= file.size
            self.removed_size += file.size


def collect(store: PackStore, rules: CollectRules, cancelled: threading.Event) -> Collected | None:
    """One round; None if another collector is at it. Blocks: run it in a thread."""
    lock_path = store.lock_path(LOCK)
    lock = try_lock(lock_path, create=True)
    if lock is None:
        return None
    try:
        # The store's own clock, which is also what says when its files were used.
        os.utime(lock.fileno())
        now = os.fstat(lock.fileno()).st_mtime
        store.remove_stale()
        prune_damaged(store.root)
        return _Round(store, rules, now, cancelled).run()
    finally:
        release(lock, lock_path)


class _Round:
    def __init__(
        self, store: PackStore, rules: CollectRules, now: float, cancelled: threading.Event
    ) -> None:
        self._store = store
        self._rules = rules
        self._now = now
        self._cancelled = cancelled
        self._done = Collected()
        # Packs and tables by their names, which are digests of different things.
        self._files: dict[Sha256, Stored] = {}
        self._holders: Counter[Sha256] = Counter()
        self._recipes: deque[tuple[Stored, tuple[Sha256, ...]]] = deque()

    def run(self) -> Collected:
        self._take_stock()
        self._forget_while(lambda recipe: self._unused(recipe, self._rules.keep_unused))
        self._remove_idle(tuple(self._files))
        forget_origins_without(self._store.root, set(self._files), self._now - self._rules.grace)
        forget_stamps(self._store.root, self._now - self._rules.keep_unused)
        limit = self._rules.max_bytes
        if limit is not None:
            self._forget_while(
                lambda recipe: self._done.size > limit and self._unused(recipe, self._rules.grace)
            )
        return self._done

    def _take_stock(self) -> None:
        for kind in ("packs", "tables"):
            for name, file in stored(self._store.root, kind):
                self._check()
                self._files[sys.intern(name)] = file
                self._done.add(file)
        found: list[tuple[Stored, tuple[Sha256, ...]]] = []
        for _, recipe in stored(self._store.root, "recipes"):
            self._check()
            held = what_it_holds(self._store, recipe)
            if held is not None:
                # The same few base layers again and again: one string for each.
                names = tuple(map(sys.intern, (*held.packs, held.tables)))
                found.append((recipe, names))
                self._holders.update(names)
                self._done.add(recipe)
        # The least recently used first.
        self._recipes.extend(sorted(found, key=lambda each: each[0].used_ns))

    def _forget_while(self, wanted: Callable[[Stored], bool]) -> None:
        while self._recipes and wanted(self._recipes[0][0]):
            self._check()
            recipe, held = self._recipes.popleft()
            # One that was used just now keeps what it holds.
            if remove_unless_used(Path(recipe.path), recipe.used_ns):
                self._done.remove(recipe)
                self._holders.subtract(held)
                self._remove_idle(held)

    def _remove_idle(self, names: Iterable[Sha256]) -> None:
        for name in names:
            self._check()
            file = self._files.get(name)
            if file is None or self._holders[name] or not self._unused(file, self._rules.grace):
                continue
            if remove_unless_used(Path(file.path), file.used_ns):
                if file.kind == "packs":
                    forget_origin(self._store.root, name)
                del self._files[name]
                self._done.remove(file)

    def _unused(self, file: Stored, seconds: float) -> bool:
        return self._now - file.used > seconds

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise WorkCancelledError("cleaning the pack store was cancelled")
