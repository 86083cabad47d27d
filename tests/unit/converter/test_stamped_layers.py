"""Layers that nobody promised a digest of: packed once, and found again by how they look."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.converter.layers import LayerOrder, LayerPacker, PackedLayer
from services.converter.packers.packers import Packers
from services.converter.packing.errors import LayerInvalidError
from services.converter.packing.limits import Limits
from services.converter.registries import Registries
from services.converter.registry.platforms import parse_platform
from services.converter.registry.transport import open_session
from services.converter.sources.interface import SourceLayer
from services.converter.sources.open import opened
from services.converter.sources.origin import FileOrigin
from services.converter.user_files.errors import UserProcessDiedError
from services.converter.user_files.own import OwnFiles
from shared.deadline import Deadline
from shared.image.packs.pack import pack_key, read_index
from shared.image.recipe import PackOptions
from shared.progress import Part
from shared.store.collect import CollectRules, collect
from shared.store.stamps import note_stamp, read_stamp, stamp_path
from shared.store.store import PackStore
from tests.support.conditions import eventually
from tests.support.packers import children_of
from tests.support.packing import directory, tar_of
from tests.support.store import DAY, grow_older

OPTIONS = PackOptions()
STAMP, OTHER = "ab" * 32, "cd" * 32
TAR = tar_of(directory("d"), ("d/.wh.file", b"x"), ("file", b"y"))
DIFF_ID = f"sha256:{hashlib.sha256(TAR).hexdigest()}"

# Has a pack that has no name yet, until it is killed.
HOLDER = f"""
import asyncio, sys, time
from pathlib import Path
from shared.deadline import Deadline
from shared.store.store import PackStore

async def hold(store):
    async with store.making({STAMP!r}, Deadline.after(10)) as path:
        path.parent.mkdir()
        path.write_bytes(b"whole")
        print("held", flush=True)
        time.sleep(60)

asyncio.run(hold(PackStore(Path(sys.argv[1]))))
"""


class Looks:
    """Layers of one content; counts how often it is read."""

    def __init__(self, content: bytes = TAR) -> None:
        self.content = content
        self.read = 0

    async def open(self, _: Deadline) -> AsyncGenerator[bytes, None]:
        self.read += 1
        yield self.content

    def layer(self, stamp: str = STAMP) -> SourceLayer:
        return SourceLayer(None, None, 1, self.open, stamp=stamp, literal=True)


@pytest.fixture
async def packer(tmp_path: Path) -> AsyncIterator[LayerPacker]:
    async with Packers(1) as packers:
        yield LayerPacker(PackStore(tmp_path / "store"), packers, Limits())


async def packed(packer: LayerPacker, layer: SourceLayer) -> PackedLayer:
    return await packer.pack(LayerOrder(layer, OPTIONS, Part(total=1), Deadline.after(30)))


async def test_what_looks_the_same_is_read_once(packer: LayerPacker) -> None:
    looks = Looks()
    first = await packed(packer, looks.layer())
    again = await packed(packer, looks.layer())
    assert first == again == PackedLayer(pack_key(DIFF_ID, OPTIONS, literal=True), DIFF_ID)
    assert looks.read == 1
    assert not [*packer.store.root.glob("unnamed/*")]
    assert not [*packer.store.root.glob("locks/*")]


async def test_those_who_want_it_at_once_wait_for_one(packer: LayerPacker) -> None:
    looks = Looks()
    found = await asyncio.gather(*(packed(packer, looks.layer()) for _ in range(4)))
    assert len(set(found)) == 1
    assert looks.read == 1


async def test_equal_content_of_another_look_has_the_same_pack(packer: LayerPacker) -> None:
    looks = Looks()
    first = await packed(packer, looks.layer())
    other = await packed(packer, looks.layer(OTHER))
    assert first == other
    assert looks.read == 2
    assert len([*packer.store.root.glob("packs/*/*.pack")]) == 1


async def test_a_pack_that_is_gone_is_made_again(packer: LayerPacker) -> None:
    looks = Looks()
    first = await packed(packer, looks.layer())
    packer.store.pack_path(first.key).unlink()
    assert await packed(packer, looks.layer()) == first
    assert looks.read == 2


async def test_a_layer_that_fails_leaves_nothing(packer: LayerPacker) -> None:
    with pytest.raises(LayerInvalidError):
        await packed(packer, Looks(b"no tar" * 1000).layer())
    assert not [path for path in packer.store.root.rglob("*") if path.is_file()]


async def test_names_like_whiteouts_are_names_there_and_only_there(packer: LayerPacker) -> None:
    literal = await packed(packer, Looks().layer())

    async def of_a_registry(_: Deadline) -> AsyncGenerator[bytes, None]:
        yield TAR

    marks = await packed(packer, SourceLayer(DIFF_ID, None, len(TAR), of_a_registry))
    assert marks.key != literal.key
    index = read_index(packer.store.pack_path(literal.key), literal.key)
    assert index.names == [b"d", b".wh.file", b"file"]
    assert not index.whiteout_names
    index = read_index(packer.store.pack_path(marks.key), marks.key)
    assert index.names == [b"d", b"file"]
    assert index.whiteout_names == [b"file"]


def test_a_pack_without_a_name_dies_with_its_owner(tmp_path: Path) -> None:
    store = PackStore(tmp_path)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        store.remove_stale()
        assert [path.name for path in tmp_path.glob("unnamed/*")] == [f"{STAMP}.pack"]
        process.send_signal(signal.SIGKILL)
    store.remove_stale()
    assert not [*tmp_path.glob("unnamed/*")]
    assert not [*tmp_path.glob("locks/*")]


def test_stamps_are_forgotten_when_nobody_uses_them(tmp_path: Path) -> None:
    store = PackStore(tmp_path)
    for stamp in (STAMP, OTHER):
        note_stamp(tmp_path, stamp, DIFF_ID)
    grow_older(tmp_path, 40 * DAY)
    assert read_stamp(tmp_path, STAMP) == DIFF_ID
    collect(store, CollectRules(grace=DAY, keep_unused=30 * DAY), threading.Event())
    assert stamp_path(tmp_path, STAMP).exists()
    assert not stamp_path(tmp_path, OTHER).exists()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"diff_id": "../x"}', b"x" * 9000])
def test_a_stamp_that_is_damaged_says_nothing(tmp_path: Path, content: bytes) -> None:
    note_stamp(tmp_path, STAMP, DIFF_ID)
    stamp_path(tmp_path, STAMP).write_bytes(content)
    assert read_stamp(tmp_path, STAMP) is None
    assert read_stamp(tmp_path, OTHER) is None


def jobs() -> set[int]:
    """The children of all our threads, but for the servers that tests share."""
    threads = map(int, os.listdir("/proc/self/task"))  # noqa: PTH208
    found = {child for thread in threads for child in children_of(thread)}
    return {child for child in found if b"services.converter" in _command(child)}


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@asynccontextmanager
async def layer_of(tree: Path, scratch: Path) -> AsyncIterator[SourceLayer]:
    """The only one of a tree."""
    deadline = Deadline.after(60)
    async with open_session() as http:
        origin, registries = FileOrigin(tree, "dir"), Registries(http, {})
        async with opened(
            origin, registries, scratch, Limits(), deadline, user_files=OwnFiles()
        ) as source:
            image = await source.resolve(parse_platform("linux/amd64"), deadline)
            (layer,) = image.layers
            yield layer


async def test_a_reader_that_is_killed_leaves_no_shorter_layer(
    tmp_path: Path, packer: LayerPacker
) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(20):
        (tmp_path / f"tree/{number}").write_bytes(os.urandom(2 << 20))
    async with layer_of(tmp_path / "tree", tmp_path / "scratch") as layer:

        async def cut_short(deadline: Deadline) -> AsyncGenerator[bytes, None]:
            async with aclosing(layer.open(deadline)) as stream:
                yield await anext(stream)
                # Not those that pack, some of which may have begun only now.
                for job in jobs():
                    if b"user_files" in _command(job):
                        os.kill(job, signal.SIGKILL)
                async for chunk in stream:
                    yield chunk

        with pytest.raises(UserProcessDiedError):
            await packed(packer, replace(layer, open=cut_short))
        assert not [path for path in packer.store.root.rglob("*") if path.is_file()]
        await packed(packer, layer)


async def test_whoever_gives_a_tree_up_leaves_no_process_and_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(os.urandom(20 << 20))
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    async with layer_of(tmp_path / "tree", tmp_path / "scratch") as layer:
        stream = layer.open(Deadline.after(60))
        assert await anext(stream)
        assert jobs()
        await stream.aclose()
        await eventually(lambda: not jobs(), within=20)
    await eventually(
        lambda: len(os.listdir("/proc/self/fd")) <= descriptors,  # noqa: PTH208
        within=20,
    )
    assert not [*(tmp_path / "scratch").iterdir()]
