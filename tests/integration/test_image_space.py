"""Room for images: looked at before, and said in numbers where it ends after all."""

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from services.distributor.errors import PlacementError
from services.distributor.placement import Terms, place_image
from services.distributor.space import DiskQuotaError, NoRoomError, Space
from shared.image.making.weave import write_all
from shared.image.recipe import PackOptions
from shared.progress import Part
from tests.support.noise import noise
from tests.support.packing import Built, build_image, tar_of

MEGABYTE = 1 << 20


@pytest.fixture
def built(tmp_path: Path) -> Built:
    layers = [tar_of(("data", noise(3 * MEGABYTE))), tar_of(("etc/name", b"upper"))]
    return build_image(layers, tmp_path / "made", PackOptions())


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of so many MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a small file system")
    made: list[Path] = []

    def make(size: int) -> Path:
        place = tmp_path / f"disk{len(made)}"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "none", place], check=True)
        made.append(place)
        return place

    yield make
    for place in made:
        subprocess.run(["umount", place], check=True)


def place(built: Built, directory: Path, terms: Terms, whole: Part | None = None) -> None:
    whole = whole or Part(total=built.recipe.size)
    place_image(built.recipe, built.store, directory, whole, threading.Event(), terms=terms)


@pytest.mark.root
def test_what_does_not_fit_is_not_begun(built: Built, make_disk: Callable[[int], Path]) -> None:
    disk = make_disk(1)
    with pytest.raises(NoRoomError, match=r"an image of 4 MiB: 1 MiB are free") as caught:
        place(built, disk, Terms())
    assert not caught.value.retryable
    assert str(disk) in caught.value.message
    assert "dray rm" in caught.value.message
    assert "operator" in caught.value.message
    assert list(disk.iterdir()) == []


@pytest.mark.root
def test_the_reserve_is_left_alone(built: Built, make_disk: Callable[[int], Path]) -> None:
    disk = make_disk(8)
    with pytest.raises(NoRoomError, match=r"8 MiB are free, of which 6 MiB stay in reserve"):
        place(built, disk, Terms(reserve=6 * MEGABYTE))
    assert list(disk.iterdir()) == []
    place(built, disk, Terms(reserve=MEGABYTE))
    assert len(list(disk.iterdir())) == 3


@pytest.mark.root
def test_what_others_are_still_to_write_is_no_room(
    built: Built, make_disk: Callable[[int], Path]
) -> None:
    disk, elsewhere = make_disk(8), make_disk(8)
    space = Space()
    other = Part(total=6 * MEGABYTE)
    with space.claimed(disk, other, 1, 0):
        with pytest.raises(NoRoomError, match=r"6 MiB are for images that are being placed"):
            place(built, disk, Terms(space=space))
        place(built, elsewhere, Terms(space=space))
        # What has been written is not free any more, and not to come any more.
        other.done = 4 * MEGABYTE
        place(built, disk, Terms(space=space))
    assert len(list(disk.iterdir())) == 3


@pytest.mark.root
def test_mirrors_need_room_as_well(built: Built, make_disk: Callable[[int], Path]) -> None:
    disk = make_disk(8)
    with (
        pytest.raises(NoRoomError, match="16 MiB"),
        Space().claimed(disk, Part(total=8 * MEGABYTE), 2, 0),
    ):
        pass


class Filling(Part):
    """Fills the disk as soon as a part of the image is written: somebody else was faster."""

    disk: ClassVar[Path]

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "done" and value:
            fill(self.disk / "filler")


def fill(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


@pytest.mark.root
def test_a_disk_that_others_fill_meanwhile_says_so_and_keeps_nothing(
    built: Built, make_disk: Callable[[int], Path]
) -> None:
    disk = make_disk(8)
    Filling.disk = disk
    whole = Filling(built.recipe.size)
    with pytest.raises(NoRoomError, match=r"became full after \d+ MiB of an image of 4 MiB: No sp"):
        place(built, disk, Terms(), whole)
    assert [path.name for path in disk.iterdir()] == ["filler"]
    (disk / "filler").unlink()
    place(built, disk, Terms())


def test_a_quota_that_is_used_up_is_said_as_one(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every kernel has quotas: the error of one is put in the place of the third write."""
    real, writes = write_all, 0

    def limited(fd: int, data: memoryview, offset: int) -> None:
        nonlocal writes
        writes += 1
        if writes == 3:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        real(fd, data, offset)

    monkeypatch.setattr("shared.image.making.target.write_all", limited)
    monkeypatch.setattr("shared.image.making.materialise.clone", lambda *_: 0)
    images = tmp_path / "images"
    with pytest.raises(DiskQuotaError, match=rf"Disk quota exceeded, for user {os.geteuid()}") as c:
        place(built, images, Terms())
    assert "an image of 4 MiB" in c.value.message
    assert "raise that quota" in c.value.message
    assert not c.value.retryable
    assert list(images.iterdir()) == []


def test_a_file_system_without_locks_is_named_as_the_trouble(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(PlacementError, match="mount option of that name"):
        place(built, tmp_path / "images", Terms())
