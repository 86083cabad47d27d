"""What looks for inputs: it changes, reduces and keeps them as it should."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from shared.image.reading.reader import SquashImage
from tests.fuzz import __main__ as fuzz
from tests.fuzz.mutate import MOST_EDITS, mutated
from tests.fuzz.reduce import failure, reduced
from tests.fuzz.squash_images import images, loosened, squeezed
from tests.fuzz.target import Target, in_memory
from tests.fuzz.tars import with_checksums
from tests.support.rawtar import END, header, padded


def _never_both(data: bytes) -> None:
    if b"<" in data and b">" in data:
        raise KeyError(data)


TARGET = Target(_never_both, lambda: [b"-" * 300], words=(b"<", b">"))


def test_words_are_found_together_soon_and_the_input_is_made_small() -> None:
    tried = (TARGET.changed(b"-" * 300, Random(number)) for number in range(5000))
    data, found = next((each, how) for each in tried if (how := failure(TARGET, each)))
    assert found[0][0] == "KeyError"
    assert sorted(reduced(TARGET, data, found[0])) == sorted(b"<>")
    assert failure(TARGET, b"<") is None


def test_the_same_number_makes_the_same_change() -> None:
    made = [mutated(b"some bytes: 17" * 20, Random(n % 500), (b"word",)) for n in range(1000)]
    assert made[:500] == made[500:]
    assert len(set(made)) > 400
    assert max(map(len, made)) < 280 + MOST_EDITS * 400
    assert mutated(b"", Random(1)) is not None


def paths(image: bytes) -> list[tuple[bytes, int]]:
    with in_memory(image) as (_, path), SquashImage(path) as found:
        return [(each.path, each.inode.size) for each in found.walk()]


@pytest.mark.parametrize("number", [1, 4, 6])
def test_an_image_whose_tables_are_compressed_in_place_is_the_same_image(number: int) -> None:
    stored = images()[1]
    compressed = squeezed(stored, number)
    assert len(compressed) == len(stored)
    assert b"n" * 200 in stored
    assert b"n" * 200 not in compressed
    assert paths(compressed) == paths(stored)
    assert paths(loosened(compressed)) == paths(stored)
    assert loosened(compressed)[96:] == stored[96:]


def test_headers_get_their_sums_back() -> None:
    tar = header(b"a", size=3) + padded(b"abc") + header(b"b", b"5") + END
    broken = tar.replace(b"a\0", b"x\0", 1).replace(b"b\0", b"y\0")
    expected = header(b"x", size=3) + padded(b"abc") + header(b"y", b"5") + END
    assert with_checksums(broken) == expected


def test_what_cannot_be_done_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fuzz.main(["nothing", "5"]) == 2
    assert "squashfs" in capsys.readouterr().out
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert fuzz.main(["hostlist", "5"]) == 2
    assert "needs atheris" in capsys.readouterr().out


def test_the_guided_search_runs(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is missing: install dray[fuzz]")
    done = subprocess.run(
        [*fuzz.GUIDED, "hostlist", "-runs=300", f"-artifact_prefix={tmp_path}/", str(tmp_path)],
        cwd=fuzz.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cov: " in done.stderr
    assert list(tmp_path.iterdir())  # inputs that reached something new


def test_a_failing_input_is_kept_reduced_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "ROOT", tmp_path)
    monkeypatch.setattr(fuzz, "REDUCE", (sys.executable, "-c", "print('KeyError')"))
    path = tmp_path / ".fuzz/x/crashes/crash-1"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<>")
    fuzz.tell("x", path)
    said = capsys.readouterr().out
    assert "KeyError" in said
    assert "install -D .fuzz/x/crashes/crash-1 tests/fuzz/found/x/NAME" in said
