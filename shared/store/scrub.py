"""Reads the pack store again and again, so that damage is found before somebody needs the bytes.

A pass goes through all packs and tables in the order of their names, and remembers how far it has
come: whoever takes the lock next goes on from there, after a restart or on another machine.
"""

import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError

from shared.files import publishing
from shared.logging import get_logger
from shared.models import Sha256, Tolerant
from shared.store.damage import Check, pack_fault, set_aside, tables_fault
from shared.store.inventory import PREFIXES, Kind, stored_below
from shared.store.locks import release, try_lock
from shared.store.store import PackStore

log = get_logger(__name__)

LOCK: Final = "scrub"
STATE: Final = "scrub.json"
_KINDS: Final[tuple[Kind, ...]] = ("packs", "tables")
# What is read twice at worst when a scrubber dies.
_SAVE_SECONDS: Final = 5.0


class ScrubState(Tolerant):
    """How far the latest pass is; times are those of the store's clock."""

    v: Literal[1] = 1
    began: Annotated[float, Field(ge=0)]
    kind: Literal["packs", "tables", "done"] = "packs"
    last: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""
    """The name of the last file that was read."""


def read_state(root: Path) -> ScrubState | None:
    """None before the first pass."""
    try:
        return ScrubState.model_validate_json((root / STATE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def scrub(store: PackStore, every: float) -> Generator[int, None, bool]:
    """Go on with the pass that is due, if one is; `every` is the time between two begins.

    Says how many bytes it has just read, so that its caller can be as slow as it likes; nothing if
    there is nothing to do. Ends with False if another scrubber is at it. Each step blocks.
    """
    lock_path = store.lock_path(LOCK)
    lock = try_lock(lock_path, create=True)
    if lock is None:
        return False
    try:
        os.utime(lock.fileno())
        now = os.fstat(lock.fileno()).st_mtime
        state = read_state(store.root)
        # A pass that began in times to come was begun by a clock that was wrong.
        if state is None or abs(now - state.began) >= every:
            state = ScrubState(began=now)
        yield from _pass(store, state)
    finally:
        release(lock, lock_path)
    return True


def _pass(store: PackStore, state: ScrubState) -> Generator[int, None, None]:
    if state.kind == "done":
        return
    saved = time.monotonic()
    for kind, name, path in _files_after(store.root, state):
        yield from _check(store, kind, name, path)
        if time.monotonic() - saved > _SAVE_SECONDS:
            _save(store.root, state.model_copy(update={"kind": kind, "last": name}))
            saved = time.monotonic()
    _save(store.root, ScrubState(began=state.began, kind="done"))


def _files_after(root: Path, state: ScrubState) -> Iterator[tuple[Kind, Sha256, Path]]:
    for kind in _KINDS:
        if state.kind == "tables" and kind == "packs":
            continue
        last = state.last if state.kind == kind else ""
        for prefix in PREFIXES:
            if prefix >= last[:2]:
                found = dict(stored_below(root, kind, prefix))
                for name in sorted(name for name in found if name > last):
                    yield kind, name, Path(found[name].path)


def _check(store: PackStore, kind: Kind, name: Sha256, path: Path) -> Check[None]:
    try:
        with path.open("rb") as file:
            seen = os.fstat(file.fileno())
            check = pack_fault(file, path, name) if kind == "packs" else tables_fault(file, name)
            fault = yield from check
    except FileNotFoundError:
        return  # collected meanwhile
    except OSError as exc:
        # Perhaps the disk is dying, perhaps a server is failing over: nothing to act upon.
        log.warning("store_file_unreadable", file=path.name, error=exc.strerror)
        return
    if fault is not None:
        set_aside(store.root, path, seen, fault)


def _save(root: Path, state: ScrubState) -> None:
    with publishing(root / STATE) as file:
        file.write(state.model_dump_json().encode())
