"""Placement on a real file system: whole or not at all, repaired where it is damaged."""

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from services.distributor import placement
from services.distributor.placement import Placements, place_image
from services.distributor.sidecars import Sidecar
from services.distributor.space import Space
from shared import threads
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import GATEWAY_EVENTS
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import AnyEvent, ImagePlaced, PlacementRequested, PullFailed
from shared.image.errors import StoreUnavailableError
from shared.image.recipe import PackOptions
from shared.progress import Part
from tests.support.conditions import eventually
from tests.support.noise import noise
from tests.support.packing import Built, build_image, tar_of

MEGABYTE = 1 << 20


@pytest.fixture
def built(tmp_path: Path) -> Built:
    layers = [tar_of(("data", noise(3 * MEGABYTE))), tar_of(("etc/name", b"upper"))]
    return build_image(layers, tmp_path / "made", PackOptions())


def place(built: Built, directory: Path) -> None:
    whole = Part(total=built.recipe.size)
    place_image(built.recipe, built.store, directory, whole, threading.Event())


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_an_image_appears_with_its_sidecars_and_nothing_else(built: Built, tmp_path: Path) -> None:
    directory = tmp_path / "images"
    place(built, directory)
    image_id = built.recipe.image_id
    assert names(directory) == [f"{image_id}.{kind}" for kind in ("json", "meta", "squashfs")]
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o644}
    image = directory / f"{image_id}.squashfs"
    assert image.read_bytes() == built.path.read_bytes()
    sidecar = Sidecar.model_validate_json(image.with_suffix(".json").read_bytes())
    assert sidecar.recipe == built.recipe


def test_what_stands_is_left_alone_and_what_is_damaged_is_replaced(
    built: Built, tmp_path: Path
) -> None:
    place(built, tmp_path / "images")
    image = tmp_path / "images" / f"{built.recipe.image_id}.squashfs"
    first = image.stat().st_ino
    place(built, tmp_path / "images")
    assert image.stat().st_ino == first

    content = image.read_bytes()
    with image.open("r+b") as mounted_by_a_job:
        mounted_by_a_job.seek(MEGABYTE)
        mounted_by_a_job.write(b"flipped")
        mounted_by_a_job.flush()
        image.with_suffix(".meta").write_text("FORMAT: VFS\n")
        place(built, tmp_path / "images")
        assert image.read_bytes() == content
        assert image.stat().st_ino != first, "a job keeps the file that it has"
        assert os.fstat(mounted_by_a_job.fileno()).st_ino == first
    assert image.with_suffix(".meta").read_text().startswith("FORMAT: squashfs\n")


def no_longer_a_file(pack: Path, _: pytest.MonkeyPatch) -> None:
    pack.unlink()
    pack.mkdir()


def on_a_dying_disk(pack: Path, patch: pytest.MonkeyPatch) -> None:
    inode = pack.stat().st_ino
    read = os.preadv

    def fails(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if os.fstat(fd).st_ino == inode:
            fails()
        return read(fd, buffers, offset)

    patch.setattr(fcntl, "ioctl", fails)
    patch.setattr(os, "copy_file_range", fails)
    patch.setattr(os, "preadv", preadv)


@pytest.mark.parametrize("damage", [no_longer_a_file, on_a_dying_disk])
def test_a_store_that_cannot_be_read_is_not_blamed_on_the_image_directory(
    built: Built,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    pack = built.store.pack_path(built.recipe.segments[0].pack)
    damage(pack, monkeypatch)
    with pytest.raises(StoreUnavailableError, match=f"store.*{pack.name}") as caught:
        place(built, tmp_path / "images")
    assert caught.value.retryable
    assert names(tmp_path / "images") == []


def test_an_image_that_cannot_be_read_any_more_is_replaced(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(built, tmp_path / "images")
    image = tmp_path / "images" / f"{built.recipe.image_id}.squashfs"
    first = image.stat().st_ino
    real = os.preadv

    def fails(fd: int, buffers: list[memoryview], offset: int) -> int:
        if os.fstat(fd).st_ino == first:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", fails)
    with image.open("rb"):  # so that its number is not given to the new one
        place(built, tmp_path / "images")
    assert image.read_bytes() == built.path.read_bytes()


async def test_a_hung_file_system_fails_the_placement_within_its_time(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang(*_: object, **__: object) -> str:
        released.wait(60)
        return "never"

    monkeypatch.setattr(placement, "place_image", hang)
    monkeypatch.setattr(threads, "LAST_WORD_SECONDS", 0.2)
    bus = EmbeddedBus([GATEWAY_EVENTS])
    await bus.open(Deadline.after(5))
    heard: list[AnyEvent] = []

    async def hear(event: AnyEvent) -> None:
        heard.append(event)

    await bus.consume(GATEWAY_EVENTS, hear, slots=1)
    settings = Settings.model_validate(
        {
            "data_dir": str(tmp_path),
            "systems": {"cluster": {"image_dir": str(tmp_path / "images")}},
            "distributor": {"placement_timeout": 0.3},
        }
    )
    request = PlacementRequested(
        correlation_id="pull", key="k", attempt=1, system="cluster", recipe=built.recipe
    )
    try:
        async with asyncio.timeout(10):
            await Placements(settings, bus, built.store, Space()).on_requested(request)
        failures = await eventually(
            lambda: [event for event in heard if isinstance(event, PullFailed)], within=5
        )
        assert failures[0].code == "deadline_exceeded"
        assert failures[0].retryable
        assert not any(isinstance(event, ImagePlaced) for event in heard)
    finally:
        released.set()
        await bus.close()
