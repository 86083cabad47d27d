"""Whose partial files go: those of the dead, told by locks where these are seen, else by age."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from shared import files
from shared.files import publishing, remove_stale_partials

BOUND = 100.0


def partial_of(directory: Path, machine: str, *, age: float = 0.0) -> Path:
    path = directory / f".image.{machine}0123456789ab.partial"
    path.write_bytes(b"half")
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_what_died_on_this_machine_goes_at_once(tmp_path: Path) -> None:
    own = partial_of(tmp_path, files._machine())
    assert remove_stale_partials(tmp_path, foreign_after=BOUND) == 1
    assert not own.exists()


def test_what_another_machine_may_be_writing_stays_until_it_is_too_old(tmp_path: Path) -> None:
    """Its lock may be seen there only."""
    young = partial_of(tmp_path, "0" * 8)
    assert remove_stale_partials(tmp_path, foreign_after=BOUND) == 0
    assert young.exists()
    old = partial_of(tmp_path, "0" * 8, age=BOUND + 60)
    assert remove_stale_partials(tmp_path, foreign_after=BOUND) == 1
    assert not old.exists()


@pytest.mark.parametrize("machine", ["", "0" * 8])
def test_where_locks_are_seen_everywhere_they_alone_count(tmp_path: Path, machine: str) -> None:
    partial = partial_of(tmp_path, machine)
    with partial.open("rb+") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert remove_stale_partials(tmp_path) == 0
    assert remove_stale_partials(tmp_path) == 1


def test_a_lock_that_is_seen_outlasts_any_age(tmp_path: Path) -> None:
    partial = partial_of(tmp_path, "0" * 8, age=10 * BOUND)
    with partial.open("rb+") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert remove_stale_partials(tmp_path, foreign_after=BOUND) == 0
    assert partial.exists()


def test_who_writes_is_left_alone(tmp_path: Path) -> None:
    with publishing(tmp_path / "image") as file:
        file.write(b"whole")
        assert remove_stale_partials(tmp_path, foreign_after=0.0) == 0
    assert (tmp_path / "image").read_bytes() == b"whole"


def test_a_file_can_be_made_by_somebody_else(tmp_path: Path) -> None:
    made: list[Path] = []

    def create(path: Path) -> bool:
        made.append(path)
        path.touch()
        return True

    with publishing(tmp_path / "image", create) as file:
        first = os.fstat(file.fileno()).st_ino
        assert made[0].stat().st_ino == first
        file.write(b"whole")
    assert (tmp_path / "image").stat().st_ino == first
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_who_could_not_make_it_in_time_may_still_do_so(tmp_path: Path) -> None:
    """It then makes a file that nobody looks at, and that goes with the next sweep."""
    refused: list[Path] = []

    def create(path: Path) -> bool:
        refused.append(path)
        return False

    with publishing(tmp_path / "image", create) as file:
        refused[0].write_bytes(b"late")
        file.write(b"whole")
    assert len(refused) == 1
    assert (tmp_path / "image").read_bytes() == b"whole"
    assert remove_stale_partials(tmp_path, foreign_after=BOUND) == 1


def test_a_sweep_between_making_and_locking_only_costs_another_try(
    tmp_path: Path,
) -> None:
    tries: list[Path] = []

    def create(path: Path) -> bool:
        tries.append(path)
        path.touch()
        if len(tries) == 1:
            assert remove_stale_partials(tmp_path, foreign_after=BOUND) == 1
            path.touch()  # as if the sweep had had it open all the while
        return True

    with publishing(tmp_path / "image", create) as file:
        file.write(b"whole")
    assert (tmp_path / "image").read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_nothing_is_left_when_the_maker_fails(tmp_path: Path) -> None:
    def create(path: Path) -> bool:
        path.touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), publishing(tmp_path / "image", create):
        pass
    assert not list(tmp_path.iterdir())
