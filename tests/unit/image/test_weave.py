"""Weaving and verifying: the same bytes on every way, and no damage that goes unnoticed."""

import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from shared.image.errors import ImageCorruptError, PackCorruptError, WorkCancelledError
from shared.image.making.verify import verify_image
from shared.image.making.weave import weave
from shared.image.recipe import Recipe
from tests.support.packing import Built, build_image, tar_of

NOISE = random.Random(1).randbytes(300_000)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    layers = [tar_of(("a", NOISE), ("b", b"b" * 5000)), tar_of(("c", NOISE[::-1]), ("d", b"d"))]
    return build_image(layers, tmp_path_factory.mktemp("built"))


def woven(built: Built, target: int | Path, recipe: Recipe | None = None) -> None:
    weave(
        recipe or built.recipe,
        built.store,
        target,
        on_progress=lambda _: None,
        cancelled=threading.Event(),
    )


def test_the_same_recipe_gives_the_same_bytes_over_an_older_file(
    built: Built, tmp_path: Path
) -> None:
    target = tmp_path / "image"
    target.write_bytes(b"\xff" * (built.recipe.size + 999))
    woven(built, target)
    assert target.read_bytes() == built.path.read_bytes()
    verify_image(target, built.recipe)


def test_an_open_file_is_filled_and_stays_open(built: Built) -> None:
    with tempfile.TemporaryFile() as target:
        woven(built, target.fileno())
        assert os.pread(target.fileno(), 4, 0) == b"hsqs"
        assert os.fstat(target.fileno()).st_size == built.recipe.size


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system: /dev/shm")
def test_another_file_system_gets_the_same_bytes(built: Built) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        target = Path(place) / "image"
        woven(built, target)
        verify_image(target, built.recipe)


def test_progress_adds_up_to_all_that_was_copied(built: Built, tmp_path: Path) -> None:
    seen: list[int] = []
    weave(
        built.recipe,
        built.store,
        tmp_path / "image",
        on_progress=seen.append,
        cancelled=threading.Event(),
    )
    segments = sum(segment.length for segment in built.recipe.segments)
    assert seen == sorted(seen)
    assert seen[-1] == segments + built.recipe.tables.length


def test_cancelling_leaves_no_superblock(built: Built, tmp_path: Path) -> None:
    cancelled = threading.Event()
    target = tmp_path / "image"
    with pytest.raises(WorkCancelledError):
        weave(
            built.recipe,
            built.store,
            target,
            on_progress=lambda _: cancelled.set(),
            cancelled=cancelled,
        )
    assert target.read_bytes()[:96].strip(b"\0") == b""


def test_a_pack_that_became_shorter_is_noticed(built: Built, tmp_path: Path) -> None:
    first, *rest = built.recipe.segments
    longer = first.model_copy(update={"length": 1 << 40, "offset": 1 << 12})
    recipe = built.recipe.model_copy(update={"segments": (longer, *rest)})
    with pytest.raises(PackCorruptError, match="shorter"):
        woven(built, tmp_path / "image", recipe)


def test_damage_in_a_packs_data_is_found_in_the_image(tmp_path: Path) -> None:
    built = build_image([tar_of(("a", NOISE))], tmp_path)
    (segment,) = built.recipe.segments
    path = built.store.pack_path(segment.pack)
    content = bytearray(path.read_bytes())
    content[segment.length // 2] ^= 1
    path.write_bytes(content)
    woven(built, tmp_path / "image")
    with pytest.raises(ImageCorruptError, match=f"the data of pack {segment.pack}"):
        verify_image(tmp_path / "image", built.recipe)


def positions(recipe: Recipe) -> dict[str, int]:
    first, second = recipe.segments
    return {
        "superblock": 4,
        "padding after the superblock": 96,
        "start of the first pack": first.offset,
        "end of the first pack": first.offset + first.length - 1,
        "padding between the packs": first.offset + first.length,
        "second pack": second.offset + second.length // 2,
        "tables": recipe.tables.offset + 10,
        "padding at the end": recipe.size - 1,
    }


@pytest.mark.parametrize(
    "place",
    [
        "superblock",
        "padding after the superblock",
        "start of the first pack",
        "end of the first pack",
        "padding between the packs",
        "second pack",
        "tables",
        "padding at the end",
    ],
)
def test_one_changed_bit_anywhere_is_found(built: Built, tmp_path: Path, place: str) -> None:
    image = bytearray(built.path.read_bytes())
    image[positions(built.recipe)[place]] ^= 1
    damaged = tmp_path / "image"
    damaged.write_bytes(image)
    with pytest.raises(ImageCorruptError):
        verify_image(damaged, built.recipe)


@pytest.mark.parametrize("change", [-1, 1])
def test_another_size_is_found(built: Built, tmp_path: Path, change: int) -> None:
    target = tmp_path / "image"
    target.write_bytes(built.path.read_bytes())
    os.truncate(target, built.recipe.size + change)
    with pytest.raises(ImageCorruptError, match="bytes"):
        verify_image(target, built.recipe)


def test_a_recipe_whose_regions_overlap_cannot_exist(built: Built) -> None:
    good = built.recipe.model_dump()
    for change in (
        {"segments": [good["segments"][1], good["segments"][0]]},
        {"segments": [{**good["segments"][0], "offset": 0}]},
        {"size": good["tables"]["offset"]},
    ):
        with pytest.raises(ValidationError, match="overlap or end outside"):
            Recipe.model_validate({**good, **change})


def test_no_codec_is_needed_to_make_an_image(built: Built, tmp_path: Path) -> None:
    """A distributor installs none: weaving and verifying must do without."""
    script = """
import sys, threading
from pathlib import Path
sys.modules["isal"] = sys.modules["zstandard"] = None
from shared.image.recipe import Recipe
from shared.store.store import PackStore
from shared.image.making.verify import verify_image
from shared.image.making.weave import weave
recipe = Recipe.model_validate_json(sys.stdin.read())
target = Path(sys.argv[2])
store = PackStore(Path(sys.argv[1]))
weave(recipe, store, target, on_progress=lambda n: None, cancelled=threading.Event())
verify_image(target, recipe)
"""
    target = tmp_path / "image"
    subprocess.run(
        [sys.executable, "-c", script, str(built.store.root), str(target)],
        input=built.recipe.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert target.read_bytes() == built.path.read_bytes()
