"""Finds out whether the pack store is to blame for an image that did not become what it should.

What is damaged there loses its name, so that the next pull makes it anew, and only that.
"""

import os
import threading
from collections import defaultdict
from pathlib import Path
from typing import Final

from shared.image.errors import (
    ImageCorruptError,
    PackCorruptError,
    PackMissingError,
    StoreUnavailableError,
)
from shared.image.recipe import PackKey, Recipe, Segment
from shared.store.damage import digest_of, finish, pack_fault, set_aside, tables_fault
from shared.store.store import PackStore

SUSPICIOUS: Final = (ImageCorruptError, PackCorruptError, PackMissingError)
"""What weaving and verifying raise when the store may be to blame."""


def check_store(recipe: Recipe, store: PackStore, cancelled: threading.Event) -> None:
    """Raise if the store does not have what the recipe says, for which a new pull is the cure.

    Blocks: it reads all that the image is made of.
    """
    segments: dict[PackKey, list[Segment]] = defaultdict(list)
    for segment in recipe.segments:
        segments[segment.pack].append(segment)
    try:
        # All of them, and not only the first: each pull costs a try.
        found = [_pack(key, segments[key], store, cancelled) for key in segments]
        found.append(_tables(recipe, store, cancelled))
    except OSError as exc:
        raise StoreUnavailableError.because(exc) from exc
    faults = [fault for fault in found if fault]
    if faults:
        raise PackCorruptError(
            f"image {recipe.image_id} cannot be made of what is in the pack store: "
            f"{'; '.join(faults)}; pull again"
        )


def _pack(
    key: PackKey, segments: list[Segment], store: PackStore, cancelled: threading.Event
) -> str | None:
    path = store.pack_path(key)
    try:
        file = store.open_pack(key)
    except PackMissingError:
        return f"pack {key} is missing"
    with file:
        for segment in segments:
            found = finish(digest_of(file, segment.source, segment.length), cancelled)
            if found != segment.sha256:
                break
        else:
            return None
        fault = finish(pack_fault(file, path, key), cancelled)
        if fault is None:
            return f"pack {key} was made again since, with other bytes"
        return _set_aside(store, path, os.fstat(file.fileno()), fault)


def _tables(recipe: Recipe, store: PackStore, cancelled: threading.Event) -> str | None:
    sha256 = recipe.tables.sha256
    try:
        file = store.open_tables(sha256)
    except PackMissingError:
        return "its tables are missing"
    with file:
        fault = finish(tables_fault(file, sha256), cancelled)
        if fault is None:
            return None
        return _set_aside(store, store.tables_path(sha256), os.fstat(file.fileno()), fault)


def _set_aside(store: PackStore, path: Path, seen: os.stat_result, fault: str) -> str:
    said = f"{path.name} is damaged ({fault})"
    try:
        set_aside(store.root, path, seen, fault)
    except OSError as exc:
        return f"{said} and could not be set aside ({exc.strerror}): the operator must remove it"
    return said
