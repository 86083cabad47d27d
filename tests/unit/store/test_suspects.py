"""An image that did not become what it should: what of the store is to blame, and goes."""

import re
import threading
from pathlib import Path

import pytest

from shared.image.errors import PackCorruptError, StoreUnavailableError, WorkCancelledError
from shared.image.recipe import PackOptions
from shared.store.suspects import check_store
from tests.support.noise import noise
from tests.support.packing import Built, build_image, tar_of


@pytest.fixture
def built(tmp_path: Path) -> Built:
    layers = [tar_of(("data", noise(1 << 20))), tar_of(("etc/name", b"upper"))]
    return build_image(layers, tmp_path, PackOptions())


def check(built: Built) -> None:
    check_store(built.recipe, built.store, threading.Event())


def blamed(built: Built) -> str:
    with pytest.raises(PackCorruptError) as caught:
        check(built)
    assert caught.value.retryable
    return caught.value.message


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def test_a_sound_store_is_not_to_blame(built: Built) -> None:
    check(built)
    assert not (built.store.root / "damaged").exists()


def test_all_that_is_damaged_is_set_aside_at_once(built: Built) -> None:
    first, second = (built.store.pack_path(part.pack) for part in built.recipe.segments)
    tables = built.store.tables_path(built.recipe.tables.sha256)
    flip(first, 5000)
    flip(tables, 10)
    said = blamed(built)
    assert first.name in said
    assert tables.name in said
    assert [path.exists() for path in (first, second, tables)] == [False, True, False]
    assert len(list((built.store.root / "damaged").iterdir())) == 2


@pytest.mark.parametrize("length", [0, 100, 5000])
def test_a_short_pack_is_set_aside(built: Built, length: int) -> None:
    path = built.store.pack_path(built.recipe.segments[0].pack)
    path.write_bytes(path.read_bytes()[:length])
    assert "damaged" in blamed(built)
    assert not path.exists()


def test_what_is_missing_is_said(built: Built) -> None:
    built.store.pack_path(built.recipe.segments[0].pack).unlink()
    built.store.tables_path(built.recipe.tables.sha256).unlink()
    said = blamed(built)
    assert re.search("pack [0-9a-f]{64} is missing; its tables are missing; pull again", said)


def test_a_sound_pack_with_other_bytes_is_kept_for_the_next_plan(built: Built) -> None:
    """Made on a machine whose gzip differs: the recipe is out of date, the pack is not damaged."""
    first = built.recipe.segments[0]
    other = first.model_copy(update={"sha256": "0" * 64})
    recipe = built.recipe.model_copy(update={"segments": (other, *built.recipe.segments[1:])})
    with pytest.raises(PackCorruptError, match="other bytes"):
        check_store(recipe, built.store, threading.Event())
    assert built.store.pack_path(first.pack).exists()


def test_a_store_that_may_only_be_read_names_the_operator(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = built.store.pack_path(built.recipe.segments[0].pack)
    flip(path, 5000)

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refused)
    assert "could not be set aside (Permission denied)" in blamed(built)
    assert path.exists()


def test_a_store_that_does_not_answer_is_not_called_damaged(built: Built) -> None:
    path = built.store.pack_path(built.recipe.segments[0].pack)
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreUnavailableError, match=path.name) as caught:
        check(built)
    assert caught.value.retryable


def test_the_search_can_be_given_up(built: Built) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(WorkCancelledError):
        check_store(built.recipe, built.store, cancelled)
