"""Who may use a placed image: the gateway's latest word, whatever order its words come in."""

import threading
from itertools import permutations
from pathlib import Path

import pytest

from services.distributor.readers import change_readers
from services.distributor.sidecars import (
    Access,
    placed_for,
    read_sidecar,
    write_sidecars,
)
from shared.events import Readers
from tests.support.recipes import small_recipe

ADA, BEN = Readers(uids=(1000,)), Readers(uids=(1001,), gids=(50,))
RECIPE = small_recipe()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / f"{RECIPE.image_id}.squashfs"
    image.write_bytes(b"image")
    image.chmod(0o644)
    return image


def change(image: Path, access: Access) -> bool:
    return change_readers(image.parent, RECIPE.image_id, access, threading.Event())


def modes(image: Path) -> set[int]:
    files = [image.with_suffix(suffix) for suffix in (".squashfs", ".meta", ".json")]
    return {file.stat().st_mode & 0o777 for file in files}


def test_the_latest_word_stands_in_whatever_order_they_come(image: Path) -> None:
    words = (Access(ADA, 1), Access(None, 2), Access(BEN, 3))
    for order in permutations(words):
        write_sidecars(image, RECIPE, Access(ADA))
        for word in (*order, *order):
            change(image, word)
        sidecar = read_sidecar(image)
        assert sidecar is not None
        assert (sidecar.readers, sidecar.revision, sidecar.recipe) == (BEN, 3, RECIPE)


def test_nobody_else_reads_the_files_of_a_private_image(image: Path) -> None:
    write_sidecars(image, RECIPE)
    assert modes(image) == {0o644}
    assert change(image, Access(BEN, 1))
    assert modes(image) == {0o600}
    meta = image.with_suffix(".meta").read_text().splitlines()
    assert meta[-2:] == ["USERACL: 1001", "GROUPACL: 50"]
    assert change(image, Access(None, 2))
    assert modes(image) == {0o644}
    assert "ACL" not in image.with_suffix(".meta").read_text()


def test_what_is_not_there_needs_no_readers(image: Path, tmp_path: Path) -> None:
    assert not change(image, Access(ADA, 1))
    assert not change_readers(tmp_path / "no", RECIPE.image_id, Access(ADA, 1), threading.Event())
    assert not image.with_suffix(".json").exists()


def test_a_placement_leaves_the_gateways_word_alone(image: Path) -> None:
    write_sidecars(image, RECIPE, Access(ADA, 4))
    assert placed_for(image, BEN) == Access(ADA, 4)
    assert placed_for(image, None) == Access(ADA, 4)


def test_before_the_gateway_has_spoken_placements_add_up(image: Path) -> None:
    assert placed_for(image, ADA) == Access(ADA)
    write_sidecars(image, RECIPE, Access(ADA))
    assert placed_for(image, BEN) == Access(Readers(uids=(1000, 1001), gids=(50,)))
    assert placed_for(image, None) == Access()
    write_sidecars(image, RECIPE, Access())
    assert placed_for(image, ADA) == Access()
    # Without the image its sidecars are leftovers.
    image.unlink()
    assert placed_for(image, ADA) == Access(ADA)
