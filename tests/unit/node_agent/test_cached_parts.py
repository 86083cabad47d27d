"""Delta staging's arithmetic, the throttle and the shelf's bounds."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.node_agent.cache.cache import Cache
from services.node_agent.cache.copying import copy_image
from services.node_agent.cache.delta import Donor, Holdings
from services.node_agent.cache.errors import CacheFullError
from services.node_agent.cache.shelf import Shelf
from services.node_agent.cache.throttle import Throttle
from shared.events import NodeImage
from shared.image.errors import WorkCancelledError
from shared.image.recipe import PackOptions, Recipe, Segment, Tables
from shared.settings.agent import CacheSettings
from tests.support.conditions import eventually
from tests.support.noise import noise
from tests.support.packing import build_image, tar_of
from tests.support.recipes import small_recipe

KIB = 1024
PACKS = ("a" * 64, "b" * 64)
CONTENT = {pack: bytes([number]) + noise(64, number)[1:] for number, pack in enumerate(PACKS)}

ranges = st.lists(
    st.tuples(st.sampled_from(PACKS), st.integers(0, 60), st.integers(1, 64)).map(
        lambda found: (found[0], found[1], min(found[2], 64 - found[1]))
    ),
    min_size=1,
    max_size=6,
)


def image_of(pieces: Sequence[tuple[str, int, int]], number: int) -> tuple[Recipe, bytes]:
    """A recipe of such pieces of packs, and the image's bytes."""
    content = bytearray(96)
    segments: list[Segment] = []
    for pack, source, length in pieces:
        data = CONTENT[pack][source : source + length]
        segments.append(
            Segment(
                pack=pack,
                offset=len(content),
                length=length,
                # Not of the content: whoever goes by it alone would find nothing.
                sha256=f"{number:02x}{len(segments):02x}" * 16,
                source=source,
            )
        )
        content += data
    recipe = small_recipe().model_copy(
        update={
            "segments": tuple(segments),
            "tables": Tables(offset=len(content), length=0, sha256=f"{number:064x}"),
            "size": len(content),
        }
    )
    return recipe, bytes(content)


@given(donors=st.lists(ranges, max_size=3), wanted=ranges)
def test_parts_are_the_region_and_nothing_that_is_here_is_fetched(
    donors: list[list[tuple[str, int, int]]], wanted: list[tuple[str, int, int]]
) -> None:
    made = [image_of(pieces, number + 1) for number, pieces in enumerate(donors)]
    files = [
        (Donor(f"{number:064x}", object(), recipe), content)  # type: ignore[arg-type]
        for number, (recipe, content) in enumerate(made)
    ]
    holdings = Holdings.of(donor for donor, _ in files)
    contents = {donor.image_id: content for donor, content in files}
    here = {
        (pack, source + n)
        for pieces in donors
        for pack, source, length in pieces
        for n in range(length)
    }
    recipe, _ = image_of(wanted, 0)
    for segment in recipe.segments:
        at = segment.source
        for part in holdings.parts(segment):
            expected = CONTENT[segment.pack][at : at + part.length]
            places = {(segment.pack, at + n) for n in range(part.length)}
            if part.donor is None:
                assert not places & here
            else:
                found = contents[part.donor.image_id]
                assert found[part.offset : part.offset + part.length] == expected
            at += part.length
        assert at == segment.source + segment.length


def test_a_region_of_the_same_digest_is_the_same_wherever_it_is() -> None:
    tables = Tables(offset=4096, length=100, sha256="c" * 64)
    donor = Donor("d" * 64, object(), small_recipe().model_copy(update={"tables": tables}))  # type: ignore[arg-type]
    holdings = Holdings.of([donor])
    [part] = holdings.parts(tables.model_copy(update={"offset": 512}))
    assert (part.donor, part.offset, part.length) == (donor, 4096, 100)
    [part] = holdings.parts(tables.model_copy(update={"sha256": "e" * 64}))
    assert part.donor is None


def test_a_squeezed_image_is_taken_from_one_that_shows_other_parts_of_its_layer(
    tmp_path: Path,
) -> None:
    """The images share a layer, of which each hides another file: no segment is the same."""
    files = [(f"f{number}", noise(256 * KIB, number)) for number in range(4)]
    base = tar_of(*files)
    without = [tar_of((f".wh.f{number}", b"")) for number in (1, 2)]
    options = PackOptions()
    made = [
        build_image([base, hiding], tmp_path / str(number), options, max_dead_share=0)
        for number, hiding in enumerate(without)
    ]
    shelf = Shelf(tmp_path / "cache", CacheSettings(reserve_bytes=0))
    shelf.open()
    first, second = made
    assert {s.sha256 for s in first.recipe.segments}.isdisjoint(
        s.sha256 for s in second.recipe.segments if s.length > 300 * KIB
    )
    never = threading.Event()
    copy_image(first.recipe, first.path, shelf, Throttle(None), never)
    tally = copy_image(second.recipe, second.path, shelf, Throttle(None), never)
    copied = shelf.get(second.recipe.image_id)
    assert copied is not None
    assert copied.path.read_bytes() == second.path.read_bytes()
    assert tally.saved >= 2 * 256 * KIB
    assert tally.copied < 256 * KIB + 64 * KIB
    shelf.close()


def test_copies_wait_for_their_share_of_the_rate() -> None:
    throttle = Throttle(1000)
    started = time.monotonic()
    for _ in range(3):
        throttle.wait(100, lambda: None)
    assert time.monotonic() - started >= 0.2


def test_whoever_waits_for_the_rate_can_be_stopped() -> None:
    throttle = Throttle(1)

    def stopped() -> None:
        raise WorkCancelledError("enough")

    throttle.wait(1000, stopped)
    with pytest.raises(WorkCancelledError):
        throttle.wait(1000, stopped)


def test_a_shelf_keeps_its_file_system_s_reserve(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "cache", CacheSettings(reserve_bytes=1 << 60))
    shelf.open()
    with pytest.raises(CacheFullError, match="reserve_bytes"), shelf.room_for(small_recipe()):
        raise AssertionError("there is no room")
    shelf.close()


def test_room_that_is_not_used_is_given_back(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "cache", CacheSettings(max_bytes=1 << 20, reserve_bytes=0))
    shelf.open()
    large = small_recipe().model_copy(update={"size": 1 << 20})
    for _ in range(2):
        with pytest.raises(RuntimeError, match="changed my mind"), shelf.room_for(large):
            raise RuntimeError("changed my mind")
    assert (shelf.copies, shelf.used_bytes) == ((), 0)
    assert [path.name for path in shelf.directory.iterdir()] == [".lock"]
    with shelf.room_for(large):
        other = small_recipe("b").model_copy(update={"size": 4096})
        with pytest.raises(CacheFullError), shelf.room_for(other):
            raise AssertionError("what is on its way counts")
    shelf.close()


def test_what_cannot_be_evicted_does_not_keep_an_image_out_for_ever(tmp_path: Path) -> None:
    """The disk fails, or was mounted read-only, and is well again later."""
    shelf = Shelf(tmp_path / "cache", CacheSettings(max_bytes=1 << 20, reserve_bytes=0))
    shelf.open()
    old, other, new = recipe_of("a", 8), recipe_of("b", 8), recipe_of("c", 9)
    for recipe in (old, other):
        with shelf.room_for(recipe):
            pass
    stuck = shelf.directory / f"{old.image_id}.squashfs"
    stuck.unlink()
    stuck.mkdir()  # nobody can unlink that
    with pytest.raises(OSError, match="directory"), shelf.room_for(new):
        raise AssertionError("there is no room")
    stuck.rmdir()
    with shelf.room_for(new):
        pass
    assert [copy.image_id for copy in shelf.copies] == [new.image_id]
    kept = {path.stem for path in shelf.directory.iterdir()} - {".lock"}
    assert kept == {new.image_id}, "nothing is there that is not counted"
    shelf.close()


def test_a_copy_that_gets_no_card_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path / "cache", CacheSettings(max_bytes=1 << 20, reserve_bytes=0))
    shelf.open()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("services.node_agent.cache.shelf.write_card", full)
    with pytest.raises(OSError, match="space"), shelf.room_for(recipe_of("a", 9)):
        pass
    assert shelf.copies == ()
    assert [path.name for path in shelf.directory.iterdir()] == [".lock"]
    shelf.close()


def recipe_of(letter: str, sixteenths: int) -> Recipe:
    """Of an image that takes so much of a cache of one megabyte."""
    size = sixteenths * KIB * 64
    return small_recipe(letter).model_copy(update={"image_id": letter * 64, "size": size})


async def test_all_who_ask_at_once_whether_it_is_busy_share_one_look(tmp_path: Path) -> None:
    image = NodeImage(image_id="a" * 64, content_digest="b" * 64, size=1)
    fifo = tmp_path / f"{image.image_id}.squashfs"
    os.mkfifo(fifo)  # to open it takes for ever
    settings = CacheSettings(busy_seconds=0.2)
    cache = Cache(settings, Shelf(tmp_path / "cache", settings), tmp_path)
    before = looking()
    assert await asyncio.gather(*(cache._is_busy(image) for _ in range(40))) == [True] * 40
    assert looking() == before + 1
    os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))  # lets the thread go
    await eventually(lambda: looking() == before, within=10)


def looking() -> int:
    return sum(thread.name == "looking" for thread in threading.enumerate())
