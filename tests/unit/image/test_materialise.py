"""Making an image with several threads: the same bytes, verified; errors and cancelling end all."""

import errno
import os
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from shared.files import publishing
from shared.image.errors import ImageCorruptError, PackCorruptError, WorkCancelledError
from shared.image.making import parallel
from shared.image.making.materialise import materialise
from shared.image.making.weave import weave
from shared.image.recipe import PackKey, Recipe, Segment
from shared.models import Sha256
from shared.store.store import PackStore
from tests.support.noise import noise
from tests.support.packing import Built, build_image, tar_of


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    monkeypatch.setattr(parallel, "_BATCH_BYTES", 1)  # each region is a batch of its own
    layers = [tar_of((f"file{n}", noise(300_000 + n, seed=n))) for n in range(4)]
    return build_image(layers, tmp_path / "built")


def make(
    built: Built,
    directory: Path,
    *,
    recipe: Recipe | None = None,
    store: "PackStore | Breaking | None" = None,
    cancelled: threading.Event | None = None,
    seen: list[int] | None = None,
) -> Path:
    final = directory / "made.squashfs"
    progress = [] if seen is None else seen
    with publishing(final) as file:
        materialise(
            recipe or built.recipe,
            store or built.store,
            file,
            on_progress=progress.append,
            cancelled=cancelled or threading.Event(),
        )
    return final


class Breaking:
    """A store that calls something whenever a pack is opened."""

    def __init__(self, store: PackStore, then: "threading.Event | Exception") -> None:
        self._store = store
        self._then = then

    def open_pack(self, key: PackKey) -> BinaryIO:
        if isinstance(self._then, Exception):
            raise self._then
        self._then.set()
        return self._store.open_pack(key)

    def open_tables(self, sha256: Sha256) -> BinaryIO:
        return self._store.open_tables(sha256)


def image_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("image")]


def test_the_bytes_are_those_of_weaving_and_progress_adds_up(built: Built, tmp_path: Path) -> None:
    seen: list[int] = []
    made = make(built, tmp_path, seen=seen)
    assert made.read_bytes() == built.path.read_bytes()
    assert seen == sorted(seen)
    assert seen[-1] == sum(region.length for region in built.recipe.regions)
    assert not image_threads()


@pytest.mark.parametrize("refused", ["opening", "writing"])
def test_a_file_system_that_only_writes_through_its_cache_gets_the_same_bytes(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    real_open, real_write = os.open, os.pwrite
    direct: set[int] = set()

    def opened(path: str, flags: int, *arguments: int, **named: int) -> int:
        if flags & os.O_DIRECT and refused == "opening":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fd = real_open(path, flags, *arguments, **named)
        if flags & os.O_DIRECT:
            direct.add(fd)
        return fd

    def written(fd: int, data: memoryview, offset: int) -> int:
        if fd in direct:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real_write(fd, data, offset)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "pwrite", written)
    assert make(built, tmp_path).read_bytes() == built.path.read_bytes()
    assert bool(direct) == (refused == "writing")


def test_a_full_disk_is_said_and_not_worked_around(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        make(built, tmp_path)
    assert not list(tmp_path.glob("*.squashfs"))


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system: /dev/shm")
def test_memory_is_a_file_system_too(built: Built) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        assert make(built, Path(place)).read_bytes() == built.path.read_bytes()


def test_a_damaged_pack_ends_with_its_name_and_leaves_nothing(built: Built, tmp_path: Path) -> None:
    segment = built.recipe.segments[2]
    path = built.store.pack_path(segment.pack)
    content = bytearray(path.read_bytes())
    content[segment.length // 2] ^= 1
    path.write_bytes(content)
    directory = tmp_path / "images"
    with pytest.raises(ImageCorruptError, match=f"the data of pack {segment.pack}"):
        make(built, directory)
    assert not list(directory.iterdir())


def test_a_failing_store_is_what_is_heard_of_and_not_who_was_stopped_by_it(
    built: Built, tmp_path: Path
) -> None:
    with pytest.raises(PackCorruptError, match="gone"):
        make(built, tmp_path, store=Breaking(built.store, PackCorruptError("gone")))
    assert not image_threads()


def test_cancelling_ends_every_thread(built: Built, tmp_path: Path) -> None:
    cancelled = threading.Event()
    with pytest.raises(WorkCancelledError):
        make(built, tmp_path, store=Breaking(built.store, cancelled), cancelled=cancelled)
    assert not image_threads()
    assert not (tmp_path / "made.squashfs").exists()


def test_a_segment_may_begin_anywhere_in_its_pack(built: Built, tmp_path: Path) -> None:
    whole = built.recipe.segments[0]
    halves = (
        whole.model_copy(update={"length": 4096}),
        Segment.model_validate(
            whole.model_dump()
            | {"source": 4096, "offset": whole.offset + 4096, "length": whole.length - 4096}
        ),
    )
    recipe = built.recipe.model_copy(update={"segments": (*halves, *built.recipe.segments[1:])})
    target = tmp_path / "image"
    weave(recipe, built.store, target, on_progress=lambda _: None, cancelled=threading.Event())
    assert target.read_bytes() == built.path.read_bytes()


def test_the_content_digest_tells_every_difference(built: Built) -> None:
    recipe = built.recipe
    first = recipe.segments[0]
    others = [
        recipe.model_copy(update={"size": recipe.size + 4096}),
        recipe.model_copy(update={"superblock": "0" * 192}),
        recipe.model_copy(update={"segments": recipe.segments[1:]}),
        recipe.model_copy(update={"segments": (first.model_copy(update={"sha256": "0" * 64}),)}),
        recipe.model_copy(update={"tables": recipe.tables.model_copy(update={"length": 1})}),
    ]
    assert len({each.content_digest for each in (recipe, *others)}) == len(others) + 1
    # Where in a pack a segment came from is not in the image.
    moved = first.model_copy(update={"source": 4096})
    same = recipe.model_copy(update={"segments": (moved, *recipe.segments[1:])})
    assert same.content_digest == recipe.content_digest
