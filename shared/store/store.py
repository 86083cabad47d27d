"""The pack store: content-addressed files that all converters share and distributors read.

packs/<k[:2]>/<key>.pack       one layer, converted once
origins/<k[:2]>/<key>.json     who gave that layer: who may have it without reading it again
stamps/<s[:2]>/<stamp>.json    which layer that is which nobody had promised a digest of
unnamed/<name>.pack            such a layer, until its digest is known
tables/<s[:2]>/<sha256>        the tables of one image
recipes/<i[:2]>/<image>.json   what holds packs and tables: an image that was made of them
locks/<name>.lock              held while a pack of that name is being made, or the store cleaned
damaged/                       what was found damaged lately

A file's time of change is when it was last used; `collect` removes what is held by no recipe
and was not used for a while. It is a cache: all of it can be pulled and made again.
"""

import asyncio
import os
import re
import stat
import threading
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import BinaryIO, Final

from shared.deadline import Deadline
from shared.errors import NotFoundError
from shared.files import publishing, remove_stale_partials
from shared.image.errors import PackCorruptError, PackMissingError, StoreUnavailableError
from shared.image.packs.pack import footer_of, read_index
from shared.image.recipe import PackKey, Recipe
from shared.logging import get_logger
from shared.models import ImageId, Sha256, Tolerant
from shared.store.damage import finish, pack_fault, set_aside
from shared.store.locks import acquire, changing, mark_used, release, try_lock
from shared.store.space import FULL, full, full_is_said

log = get_logger(__name__)

_HEX = re.compile(r"[0-9a-f]{64}")
_PIECE: Final = 1 << 20


class Held(Tolerant):
    """Of a remembered recipe what the store must keep for it; in every version of the document."""

    packs: tuple[PackKey, ...]
    tables: Sha256


class Remembered(Held):
    """The document in `recipes`. `packs` has those as well that bring no data to the image."""

    recipe: Recipe


class PackStore:
    """Paths and publication; whoever wants a pack that is missing makes it under its lock."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def keep_to_itself(self) -> None:
        """Have the store, closed to others: what is in it is of private images, too. Blocks."""
        self.root.mkdir(mode=0o750, parents=True, exist_ok=True)
        mode = stat.S_IMODE(self.root.stat().st_mode)
        if not mode & stat.S_IRWXO:
            return
        try:
            self.root.chmod(mode & ~stat.S_IRWXO)
        except PermissionError:
            log.warning("store_open_to_all", path=str(self.root), advice="chmod o-rwx")

    def pack_path(self, key: PackKey) -> Path:
        return self._path("packs", key, ".pack")

    def tables_path(self, sha256: Sha256) -> Path:
        return self._path("tables", sha256, "")

    def recipe_path(self, image_id: ImageId) -> Path:
        return self._path("recipes", image_id, ".json")

    def lock_path(self, name: str) -> Path:
        return self.root / "locks" / f"{name}.lock"

    @asynccontextmanager
    async def building(self, key: PackKey, deadline: Deadline) -> AsyncIterator[Path | None]:
        """Where to publish the pack, for the one who may make it now; None if it is there.

        Others, in this process or elsewhere, wait until the holder is done or dead. A pack that is
        there counts as just used: nobody removes it before its recipe can be remembered.
        """
        lock_path = self.lock_path(key)
        async with deadline.bound(f"waiting for another converter to make pack {key}"):
            there = await asyncio.to_thread(self.use_pack, key)
            lock = None if there else await acquire(lock_path)
        if lock is None:
            yield None
            return
        try:
            async with deadline.bound(f"looking for pack {key} in the store"):
                there = await asyncio.to_thread(self.use_pack, key)
            yield None if there else self.pack_path(key)
        except OSError as exc:
            if exc.errno not in FULL:
                raise
            raise await asyncio.to_thread(full, self.root, exc) from exc
        finally:
            # Released all the same when we are cancelled: a thread cannot be stopped.
            await asyncio.shield(asyncio.to_thread(release, lock, lock_path))

    @asynccontextmanager
    async def making(self, name: Sha256, deadline: Deadline) -> AsyncIterator[Path]:
        """Where to make a pack whose key is not known yet, one at a time for each name.

        The body moves it to where it belongs; what it leaves is removed, by others if it dies.
        """
        lock_path = self.lock_path(name)
        async with deadline.bound("waiting for another converter to read the same files"):
            lock = await acquire(lock_path)
        path = self._unnamed(name)
        try:
            yield path
        except OSError as exc:
            if exc.errno not in FULL:
                raise
            raise await asyncio.to_thread(full, self.root, exc) from exc
        finally:
            await asyncio.shield(asyncio.to_thread(_give_up, path, lock, lock_path))

    def use_pack(self, key: PackKey) -> bool:
        """Whether the pack is there, and ends as it should; it then counts as just used. Blocks.

        One that was cut short, or has another's name, is set aside.
        """
        path = self.pack_path(key)
        if not mark_used(path):
            return False
        try:
            with path.open("rb") as file:
                seen = os.fstat(file.fileno())
                footer = footer_of(file, path)
        except FileNotFoundError:
            return False
        except PackCorruptError as exc:
            set_aside(self.root, path, seen, exc.message)
            return False
        if footer.key != key:
            set_aside(self.root, path, seen, f"it holds the pack {footer.key}")
        return footer.key == key

    def set_aside_unreadable(self, keys: Collection[PackKey], cancelled: threading.Event) -> int:
        """Take those packs out of the way that are damaged; returns how many. Blocks.

        For a planner that failed at the index or the data of one of them: then they can be made
        again. Reads all of them.
        """
        count = 0
        for key in keys:
            path = self.pack_path(key)
            try:
                seen = path.stat()
                read_index(path, key)
                with path.open("rb") as file:
                    fault = finish(pack_fault(file, path, key), cancelled)
                count += fault is not None and set_aside(self.root, path, seen, fault)
            except FileNotFoundError:
                count += 1
            except PackCorruptError as exc:
                count += set_aside(self.root, path, seen, exc.message)
        return count

    def put_tables(self, blob: bytes) -> Sha256:
        """Publish an image's tables; returns their name. Blocks: run it in a thread."""
        sha256 = new_sha256(blob).hexdigest()
        with full_is_said(self.root):
            _put(self.tables_path(sha256), blob)
        return sha256

    def remember(self, recipe: Recipe) -> None:
        """Keep the packs of all the image's layers, and its tables, for this recipe. Blocks.

        To be called at each use of the recipe: what has not been used for long is forgotten.
        """
        keys = [layer.pack for layer in recipe.layers] + [part.pack for part in recipe.segments]
        packs = tuple(dict.fromkeys(keys))
        paths = (*map(self.pack_path, packs), self.tables_path(recipe.tables.sha256))
        document = Remembered(packs=packs, tables=recipe.tables.sha256, recipe=recipe)
        _mark_all(paths)
        with full_is_said(self.root):
            _put(self.recipe_path(recipe.image_id), document.model_dump_json().encode())
        # A collector that had looked for recipes before this one came may have taken something,
        # and cannot any more.
        _mark_all(paths)

    def open_pack(self, key: PackKey) -> BinaryIO:
        return _open(self.pack_path(key))

    def open_tables(self, sha256: Sha256) -> BinaryIO:
        return _open(self.tables_path(sha256))

    def remove_stale(self) -> int:
        """Remove what dead owners left half-made; returns how many files. Blocks."""
        removed = remove_stale_partials(self.root)
        for path in (self.root / "locks").glob("*.lock"):
            # Whoever wants to clean asks once, and must not find us: such a lock file may stay.
            lock = try_lock(path) if _HEX.fullmatch(path.stem) else None
            if lock is not None:
                # Its owner may have died between making a pack and naming it.
                _give_up(self._unnamed(path.stem), lock, path)
                removed += 1
        return removed

    def _unnamed(self, name: Sha256) -> Path:
        return self.root / "unnamed" / f"{name}.pack"

    def _path(self, kind: str, name: str, suffix: str) -> Path:
        if not _HEX.fullmatch(name):
            raise NotFoundError(f"{name!r} cannot be the name of anything in the pack store")
        return self.root / kind / name[:2] / f"{name}{suffix}"


def _give_up(pack: Path, lock: BinaryIO, lock_path: Path) -> None:
    """Remove a pack that was not moved to its place, then the lock."""
    try:
        pack.unlink(missing_ok=True)
    finally:
        release(lock, lock_path)


def _mark_all(paths: Iterable[Path]) -> None:
    for path in paths:
        if not mark_used(path):
            raise _missing(path)


def _put(path: Path, content: bytes) -> None:
    """Have this content under this name, as just used."""
    if _has(path, content) and mark_used(path):
        return
    with changing(path), publishing(path) as file:
        file.write(content)


def _has(path: Path, content: bytes) -> bool:
    """Whether all of it is there, and undamaged."""
    view = memoryview(content)
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == len(content) and all(
                file.read(_PIECE) == view[start : start + _PIECE]
                for start in range(0, len(content), _PIECE)
            )
    except FileNotFoundError:
        return False


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as exc:
        raise _missing(path) from exc
    except OSError as exc:
        raise StoreUnavailableError.because(exc) from exc


def _missing(path: Path) -> PackMissingError:
    return PackMissingError(
        f"{path.parent.parent.name}/{path.name} is not in the store: pull again"
    )
