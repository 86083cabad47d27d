"""What all hooks are made of: their time, their end, their notes, and what jobs carry along."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import hook_notes
from cli.agent import PinnedImage
from cli.errors import UnreachableError, UsageError
from cli.hook_guard import OutOfTimeError, harmless, within
from cli.hook_notes import Notes, checked
from cli.job_images import MOST, read_images, read_pulls, written

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
images = st.builds(PinnedImage, digests, digests, st.integers(0, 1 << 50))


@given(st.lists(images, max_size=MOST))
def test_images_of_a_job_are_read_as_they_were_written(given: list[PinnedImage]) -> None:
    assert read_images(written(given)) == tuple(given)


@given(st.text(max_size=300))
def test_what_a_user_made_of_it_is_refused_or_harmless(text: str) -> None:
    try:
        found = read_images(text)
    except UsageError:
        return
    assert all(len(image.image_id) == 64 for image in found)


def test_more_images_than_a_job_may_have_and_strange_pulls_are_refused() -> None:
    image = PinnedImage("a" * 64, "b" * 64, 1)
    with pytest.raises(UsageError, match="33 images"):
        read_images(written([image] * (MOST + 1)))
    assert read_pulls("one;two") == ("one", "two")
    with pytest.raises(UsageError, match="no pull's id"):
        read_pulls("../one")


def test_a_hook_breaks_off_what_takes_too_long() -> None:
    began = time.monotonic()
    with (
        pytest.raises(OutOfTimeError, match=r"the work took longer than 0\.05 s"),
        within(0.05, "the work"),
    ):
        time.sleep(30)
    assert time.monotonic() - began < 10


def test_a_hook_ends_well_whatever_happens_unless_it_shall_tell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused() -> None:
        raise UnreachableError("nobody is\nthere")

    def broken() -> None:
        raise ZeroDivisionError

    assert harmless(lambda: None, strict=True) == 0
    assert harmless(refused, strict=False) == 0
    assert harmless(broken, strict=False) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "dray: nobody is there"
    assert "ZeroDivisionError" in said[1]
    assert harmless(refused, strict=True) == 3
    assert harmless(broken, strict=True) == 1


def test_notes_are_told_once_the_oldest_first_and_kept_on_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes(tmp_path / "spool/notes")
    notes.tell(lambda _: pytest.fail("there is nothing"))
    for number, job in enumerate(("9", "10", "11_[3]")):
        notes.add(job)
        os.utime(tmp_path / f"spool/notes/{job}.ended", (number, number))
    assert notes.drop("11_[3]")
    assert not notes.drop("unknown")

    told: list[str] = []

    def away(job: str) -> None:
        told.append(job)
        if job == "10":
            raise UnreachableError("gone")

    with pytest.raises(UnreachableError):
        notes.tell(away)
    notes.tell(told.append)
    notes.tell(told.append)
    assert told == ["9", "10", "10"]

    monkeypatch.setattr(hook_notes, "AT_ONCE", 1)
    notes.add("1")
    notes.add("2")
    told.clear()
    notes.tell(told.append)
    assert len(told) == 1


@pytest.mark.parametrize("job", ["", "../17", "a/b", ".17", "17\n", "x" * 129])
def test_a_job_that_would_name_another_file_is_refused(job: str) -> None:
    with pytest.raises(UsageError, match="no job's id"):
        checked(job)
