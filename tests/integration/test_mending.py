"""Damaged and missing images are found, and made again out of packs, in a file of their own."""

import asyncio
import errno
import mmap
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.distributor import scrub as scrubbing
from services.distributor.image_lock import image_lock
from services.distributor.inventory import ImageDirectoryAbsentError, ours
from services.distributor.marks import Marks
from services.distributor.mending import ImageLostError, Mender, Outcome, mend
from services.distributor.placement import Terms, place_image
from services.distributor.removal import mark_if_there
from services.distributor.scrub import ScrubState, Suspect, read_state, scrub
from services.distributor.sidecars import FOR_ITS_READERS, read_sidecar
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import GATEWAY_EVENTS
from shared.deadline import Deadline
from shared.events import ImageLost, Readers
from shared.image.errors import PackCorruptError
from shared.image.recipe import PackOptions
from shared.progress import Part
from shared.store.locks import release, try_lock
from tests.support.bus import Recorder
from tests.support.conditions import eventually
from tests.support.noise import noise
from tests.support.packing import Built, build_image, tar_of

EVERY = 30 * 86400.0
SYSTEM = "cluster"


def build(root: Path, text: bytes) -> Built:
    layers = [tar_of(("data", noise(1 << 20))), tar_of(("etc/name", text))]
    return build_image(layers, root, PackOptions())


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build(tmp_path / "made", b"one")


@pytest.fixture
def images(tmp_path: Path, built: Built) -> Path:
    place(built, tmp_path / "images")
    assert ours(tmp_path / "images", -60)  # as the first look at it leaves a sign
    return tmp_path / "images"


def place(built: Built, directory: Path, readers: Readers | None = None) -> Path:
    whole = Part(total=built.recipe.size)
    place_image(built.recipe, built.store, directory, whole, threading.Event(), readers=readers)
    return directory / f"{built.recipe.image_id}.squashfs"


def image_of(built: Built, images: Path) -> Path:
    return images / f"{built.recipe.image_id}.squashfs"


def flip(path: Path, offset: int = 5000) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def mended(built: Built, images: Path) -> Outcome:
    return mend(images, built.recipe.image_id, built.store, Terms(), threading.Event())


def test_what_is_sound_is_left_alone(built: Built, images: Path) -> None:
    inode = image_of(built, images).stat().st_ino
    assert mended(built, images) is Outcome.SOUND
    assert image_of(built, images).stat().st_ino == inode


def test_a_flipped_bit_is_mended_and_a_running_mount_is_unharmed(
    built: Built, images: Path
) -> None:
    image = image_of(built, images)
    with image.open("rb") as mounted, mmap.mmap(mounted.fileno(), 0, prot=mmap.PROT_READ) as pages:
        flip(image)
        damaged = pages[5000]
        inode = os.fstat(mounted.fileno()).st_ino
        assert mended(built, images) is Outcome.MENDED
        assert os.fstat(mounted.fileno()).st_ino == inode, "the file that it has"
        assert pages[5000] == damaged
        assert image.stat().st_ino != inode
    assert image.read_bytes() == built.path.read_bytes()
    assert len(list(images.iterdir())) == 4, "its three files, and the sign"


def test_a_missing_image_comes_back_for_whom_it_was(built: Built, tmp_path: Path) -> None:
    image = place(built, tmp_path / "images", Readers(uids=(1000,)))
    assert ours(tmp_path / "images", -60)
    image.unlink()
    assert mended(built, tmp_path / "images") is Outcome.MENDED
    assert image.read_bytes() == built.path.read_bytes()
    assert image.stat().st_mode & 0o777 == FOR_ITS_READERS
    sidecar = read_sidecar(image)
    assert sidecar is not None
    assert sidecar.readers == Readers(uids=(1000,))


def test_what_is_on_its_way_out_is_not_brought_back(built: Built, images: Path) -> None:
    mark = mark_if_there(images, built.recipe.image_id)
    image_of(built, images).unlink()
    assert mended(built, images) is Outcome.LEAVING
    assert Marks(images).read(built.recipe.image_id) == mark
    assert not image_of(built, images).exists()


def test_without_its_description_it_is_lost(built: Built, images: Path) -> None:
    image_of(built, images).with_suffix(".json").unlink()
    with pytest.raises(ImageLostError, match="no readable description"):
        mended(built, images)


@pytest.mark.parametrize("left", [True, False])
def test_where_the_file_system_went_away_nothing_is_lost(
    left: bool, built: Built, images: Path
) -> None:
    """It was unmounted between the look at the directory and the look at this image."""
    images.rename(images.with_name("elsewhere"))
    if left:
        images.mkdir()
    with pytest.raises(ImageDirectoryAbsentError):
        mended(built, images)


def test_without_its_packs_it_is_lost_and_the_damaged_file_stays(
    built: Built, images: Path
) -> None:
    built.store.pack_path(built.recipe.segments[0].pack).unlink()
    flip(image_of(built, images))
    damaged = image_of(built, images).read_bytes()
    with pytest.raises(PackCorruptError, match="is missing; pull again"):
        mended(built, images)
    assert image_of(built, images).read_bytes() == damaged, "jobs may be in it"
    assert not list(images.glob("*.partial"))


def test_without_room_it_is_lost(built: Built, images: Path) -> None:
    image_of(built, images).unlink()
    terms = Terms(reserve=1 << 62)
    with pytest.raises(ImageLostError, match=r"is not there; .* has no room"):
        mend(images, built.recipe.image_id, built.store, terms, threading.Event())


def test_a_pass_finds_what_is_damaged_and_only_that(
    built: Built, images: Path, tmp_path: Path
) -> None:
    other = build(tmp_path / "made2", b"two")
    place(other, images)
    flip(image_of(built, images))
    (images / f"{'a' * 64}.squashfs").write_bytes(b"somebody else's")
    steps = list(scrub(images, EVERY))
    suspects = [step for step in steps if isinstance(step, Suspect)]
    assert [suspect.image_id for suspect in suspects] == [built.recipe.image_id]
    assert "damaged" in suspects[0].fault
    read = sum(step for step in steps if isinstance(step, int))
    assert read > other.recipe.tables.length
    assert list(scrub(images, EVERY)) == [], "once in a while is enough"
    assert not (images / scrubbing.LOCK).exists()


def test_what_cannot_be_read_is_suspect(
    built: Built, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", dying)
    suspects = [step for step in scrub(images, EVERY) if isinstance(step, Suspect)]
    assert [suspect.image_id for suspect in suspects] == [built.recipe.image_id]


def test_a_pass_goes_on_where_it_was(
    built: Built, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [build(tmp_path / f"made{n}", b"%d" % n) for n in range(3)]
    for other in others:
        place(other, images)
    every = sorted([built.recipe.image_id, *(each.recipe.image_id for each in others)])
    for each in every:
        flip(images / f"{each}.squashfs")
    monkeypatch.setattr(scrubbing, "_SAVE_SECONDS", 0.0)
    seen: list[str] = []
    steps = scrub(images, EVERY)
    for step in steps:
        if isinstance(step, Suspect):
            seen.append(step.image_id)
            if len(seen) == 3:
                break
    steps.close()  # it dies here, after the third of four
    state = read_state(images)
    assert state is not None
    assert state.last == every[1], "the third may not have been dealt with"
    seen = [step.image_id for step in scrub(images, EVERY) if isinstance(step, Suspect)]
    assert seen == every[2:]


def test_one_reads_at_a_time(images: Path) -> None:
    lock = try_lock(images / scrubbing.LOCK, create=True)
    assert lock is not None
    assert list(scrub(images, EVERY)) == []
    assert read_state(images) is None
    release(lock, images / scrubbing.LOCK)
    assert list(scrub(images, EVERY))


def test_a_clock_that_was_wrong_once_does_not_end_all_reading(images: Path) -> None:
    ahead = ScrubState(began=time.time() + 2 * EVERY, done=True)
    (images / scrubbing.STATE).write_text(ahead.model_dump_json())
    assert list(scrub(images, EVERY))
    assert not list(scrub(images, EVERY))


class Site:
    """A mender, and what gateways hear of it."""

    def __init__(self, bus: EmbeddedBus, heard: Recorder, built: Built, images: Path) -> None:
        self.heard = heard
        self.mender = Mender(
            {SYSTEM: images},
            {SYSTEM: Terms()},
            bus,
            built.store,
            seconds=20,
            publish_timeout=5,
        )


@pytest.fixture
async def site(built: Built, images: Path) -> AsyncIterator[Site]:
    bus = EmbeddedBus([GATEWAY_EVENTS])
    await bus.open(Deadline.after(5))
    heard = Recorder()
    await bus.consume(GATEWAY_EVENTS, heard, slots=1)
    site = Site(bus, heard, built, images)
    site.mender.start()
    yield site
    await site.mender.stop()
    await bus.close()


async def test_what_is_wanted_is_mended_soon_and_once(
    site: Site, built: Built, images: Path
) -> None:
    image = image_of(built, images)
    image.unlink()
    with image_lock(images, built.recipe.image_id, threading.Event()):
        for _ in range(5):
            site.mender.want(SYSTEM, built.recipe.image_id)
        await asyncio.sleep(0)
        assert not image.exists()
    await eventually(image.exists, within=20)
    assert site.heard.events == []


async def test_what_is_lost_is_told_and_what_is_unclear_is_not(
    site: Site, built: Built, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_of(built, images)
    image.unlink()

    def failing_over(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        patch.setattr("services.distributor.mending.write_image", failing_over)
        assert await site.mender.look(SYSTEM, built.recipe.image_id) is None
    built.store.tables_path(built.recipe.tables.sha256).unlink()
    assert await site.mender.look(SYSTEM, built.recipe.image_id) is None
    [event] = await eventually(lambda: site.heard.events, within=5)
    assert isinstance(event, ImageLost)
    assert (event.system, event.image_id) == (SYSTEM, built.recipe.image_id)
    assert "its tables are missing" in event.message
