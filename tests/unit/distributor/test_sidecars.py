"""What Shifter's runtime reads beside an image."""

from pathlib import Path

from services.distributor.sidecars import Sidecar, shifter_meta, write_sidecars
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
