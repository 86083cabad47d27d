"""Removal on a real file system: marks, graces, and what crashes leave behind."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from services.distributor import removal
from services.distributor.image_lock import image_lock, remove_stale_locks
from services.distributor.marks import LOCK, REMOVAL, Marks
from services.distributor.placement import place_image
from services.distributor.removal import delete_removed, forget, mark_if_there, take_away
from shared.bus.embedded import EmbeddedBus
from shared.bus.topology import GATEWAY_EVENTS
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import RemovalProposed
from shared.image.recipe import PackOptions
from shared.progress import Part
from tests.support.bus import Recorder
from tests.support.conditions import eventually
from tests.support.noise import noise
from tests.support.packing import Built, build_image, tar_of

DAY = 86400.0


@pytest.fixture
def built(tmp_path: Path) -> Built:
    layers = [tar_of(("data", noise(1 << 20))), tar_of(("etc/name", b"upper"))]
    return build_image(layers, tmp_path / "made", PackOptions())


@pytest.fixture
def images(built: Built, tmp_path: Path) -> Path:
    place(built, tmp_path / "images")
    return tmp_path / "images"


def place(built: Built, directory: Path) -> None:
    whole = Part(total=built.recipe.size)
    place_image(built.recipe, built.store, directory, whole, threading.Event())


def marked(built: Built, images: Path) -> str:
    mark = mark_if_there(images, built.recipe.image_id)
    assert mark is not None
    return mark


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_is_removed_can_be_read_until_its_grace_is_over(built: Built, images: Path) -> None:
    image = images / f"{built.recipe.image_id}.squashfs"
    content, inode = image.read_bytes(), image.stat().st_ino
    assert take_away(images, image.stem, marked(built, images))
    assert names(images) == [REMOVAL]
    [kept] = (images / REMOVAL).glob("*.removed")
    assert (kept.stat().st_ino, kept.read_bytes()) == (inode, content), (
        "the very file, unlinked not"
    )
    assert delete_removed(images, DAY) == 0
    assert kept.exists()
    assert delete_removed(images, 0.0) == len(content)
    assert names(images / REMOVAL) == [LOCK]


def test_a_file_that_cannot_be_deleted_keeps_nothing_else_waiting(
    built: Built, images: Path
) -> None:
    size = (images / f"{built.recipe.image_id}.squashfs").stat().st_size
    assert take_away(images, built.recipe.image_id, marked(built, images))
    for number in range(20):  # in whatever order they are found
        (images / REMOVAL / f"{number}.0.stuck.removed").mkdir()
    assert delete_removed(images, 0.0) == size
    assert not list((images / REMOVAL).glob(f"{built.recipe.image_id}*"))


async def test_what_may_have_to_go_is_asked_about_while_deleting_fails(
    built: Built, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked(built, images)
    mark = next((images / REMOVAL).glob("*.mark"))
    os.utime(mark, (0, 0))
    settings = Settings.model_validate(
        {"data_dir": str(images.parent), "systems": {"cluster": {"image_dir": str(images)}}}
    )
    bus = EmbeddedBus([GATEWAY_EVENTS])
    await bus.open(Deadline.after(5))
    heard = Recorder()
    await bus.consume(GATEWAY_EVENTS, heard, slots=1)

    def slow(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(removal, "delete_removed", slow)
    with pytest.raises(OSError, match="error"):
        await removal.Removals(settings, bus, ["cluster"]).tend("cluster")
    [asked] = await eventually(lambda: heard.events, within=5)
    assert isinstance(asked, RemovalProposed)
    assert asked.mark == mark.read_text()
    await bus.close()


def test_a_mark_is_changed_by_each_request_and_by_placing(built: Built, images: Path) -> None:
    stale = marked(built, images)
    first = marked(built, images)
    assert not forget(images, built.recipe.image_id, stale), "a request came after the answer"
    assert Marks(images).read(built.recipe.image_id) == first
    place(built, images)
    second = Marks(images).read(built.recipe.image_id)
    assert second not in {None, first}
    assert not take_away(images, built.recipe.image_id, first), "it was placed since"
    assert not forget(images, built.recipe.image_id, first)
    assert (images / f"{built.recipe.image_id}.squashfs").exists()
    assert forget(images, built.recipe.image_id, second or "")
    assert Marks(images).read(built.recipe.image_id) is None


def test_nothing_is_marked_where_nothing_is(tmp_path: Path) -> None:
    assert mark_if_there(tmp_path, "a" * 64) is None
    assert names(tmp_path) == []


def test_of_many_who_mark_at_once_one_is_the_last(images: Path, built: Built) -> None:
    found: list[str] = []
    start = threading.Barrier(8)

    def one() -> None:
        start.wait()
        found.append(marked(built, images))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert Marks(images).read(built.recipe.image_id) in found
    assert names(images / REMOVAL) == [LOCK, f"{built.recipe.image_id}.mark"]


def test_a_removal_that_a_crash_cut_short_is_finished(
    built: Built, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = marked(built, images)

    def dies(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(removal, "sync_directory", dies)
    with pytest.raises(KeyboardInterrupt):
        take_away(images, built.recipe.image_id, mark)
    monkeypatch.undo()
    assert not (images / f"{built.recipe.image_id}.squashfs").exists()
    assert Marks(images).read(built.recipe.image_id) == mark, "it is known that it was to go"
    assert take_away(images, built.recipe.image_id, mark)
    assert names(images) == [REMOVAL]
    assert len(list((images / REMOVAL).glob("*.removed"))) == 1
    assert Marks(images).read(built.recipe.image_id) is None


def test_what_is_being_placed_is_not_removed(built: Built, images: Path) -> None:
    mark = marked(built, images)
    with image_lock(images, built.recipe.image_id, threading.Event()):
        assert not take_away(images, built.recipe.image_id, mark)
    assert (images / f"{built.recipe.image_id}.squashfs").exists()
    assert take_away(images, built.recipe.image_id, mark)


def test_one_who_places_waits_for_another(built: Built, images: Path) -> None:
    done = threading.Event()

    def work() -> None:
        place(built, images)
        done.set()

    waiting = threading.Thread(target=work)
    with image_lock(images, built.recipe.image_id, threading.Event()):
        waiting.start()
        assert not done.wait(0.3)
    assert done.wait(20)
    waiting.join()
    assert not [name for name in names(images) if name.endswith(".lock")]


def test_locks_of_the_dead_are_removed_and_those_of_the_living_are_not(images: Path) -> None:
    (images / f".{'b' * 64}.lock").touch()
    with image_lock(images, "a" * 64, threading.Event()):
        remove_stale_locks(images)
        assert [name for name in names(images) if name.endswith(".lock")] == [f".{'a' * 64}.lock"]


def test_marks_are_asked_about_in_turn_and_not_too_often(images: Path) -> None:
    marks = Marks(images)
    for age, letter in ((300, "a"), (200, "b"), (100, "c")):
        marks.mark(letter * 64)
        then = time.time() - age
        os.utime(images / REMOVAL / f"{letter * 64}.mark", (then, then))
    assert [image[0] for image, _ in marks.waiting(60, limit=2)] == ["a", "b"]
    assert [image[0] for image, _ in marks.waiting(60, limit=2)] == ["c"]
    assert list(marks.waiting(60, limit=2)) == []


def test_what_is_placed_after_it_was_given_up_is_asked_about(built: Built, images: Path) -> None:
    """Its pull was told that it failed; else the file would be nobody's, for ever."""
    cancelled = threading.Event()

    class Whole(Part):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "done" and value:
                cancelled.set()  # as a file system that hung does it, when nobody looks any more

    whole = Whole(total=built.recipe.size)
    place_image(built.recipe, built.store, images, whole, cancelled)
    assert (images / f"{built.recipe.image_id}.squashfs").exists()
    assert Marks(images).read(built.recipe.image_id) is not None
