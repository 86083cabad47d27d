"""What Shifter's runtime reads beside an image."""

from pathlib import Path

import pytest

from services.distributor.sidecars import Sidecar, shifter_meta, write_sidecars
from shared.events import Readers
from shared.image.recipe import ImageConfig
from tests.support.recipes import small_recipe

CONFIG = ImageConfig(
    env=("PATH=/bin", "LANG=C"), entrypoint=("/bin/it's",), cmd=("a b", "c"), workdir="/work"
)


def test_shifters_lines() -> None:
    assert shifter_meta(small_recipe(config=CONFIG)).splitlines() == [
        "FORMAT: squashfs",
        'ENTRY: ["/bin/it\'s"]',
        "CMD: ['a b', 'c']",
        "WORKDIR: /work",
        "ENV: PATH=/bin",
        "ENV: LANG=C",
    ]


def test_nothing_from_an_image_can_add_a_line() -> None:
    hostile = ImageConfig(
        env=("A=1\nUSERACL: 0", "B=2"), entrypoint=("x\nFORMAT: VFS",), workdir="/w\nENTRY: ['y']"
    )
    lines = shifter_meta(small_recipe(config=hostile)).splitlines()
    assert lines == ["FORMAT: squashfs", "ENTRY: ['x\\nFORMAT: VFS']", "ENV: B=2"]


def test_a_backslash_does_not_take_the_next_line_along() -> None:
    config = ImageConfig(env=("A=1\\", "B=\\ \t", "C=\\c"), workdir="/w\\")
    lines = shifter_meta(small_recipe(config=config)).splitlines()
    assert lines == ["FORMAT: squashfs", "ENV: C=\\c"]


@pytest.mark.parametrize(
    ("readers", "lines"),
    [
        (None, []),
        (Readers(uids=(7,)), ["USERACL: 7"]),
        (Readers(uids=(7, 1000), gids=(50, 51)), ["USERACL: 7,1000", "GROUPACL: 50,51"]),
        (Readers(gids=(50,)), ["GROUPACL: 50"]),
        (Readers(), ["USERACL: 4294967295"]),
    ],
)
def test_readers_are_said_so_that_shifters_runtime_obeys(
    readers: Readers | None, lines: list[str]
) -> None:
    """It aborts at a list without a number, passes over what has a bracket, and takes no list at
    all for everybody."""
    meta = shifter_meta(small_recipe(config=ImageConfig()), readers).splitlines()
    assert meta == ["FORMAT: squashfs", *lines]


def test_both_files_appear_and_the_recipe_can_be_read_back(tmp_path: Path) -> None:
    recipe = small_recipe(config=CONFIG)
    image = tmp_path / f"{recipe.image_id}.squashfs"
    write_sidecars(image, recipe)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{recipe.image_id}.json",
        f"{recipe.image_id}.meta",
    ]
    sidecar = Sidecar.model_validate_json(image.with_suffix(".json").read_bytes())
    assert sidecar.recipe == recipe
