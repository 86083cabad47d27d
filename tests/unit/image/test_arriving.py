"""An image that is checked while it comes: whole, cut short, longer, or with any byte changed."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.image.errors import ImageCorruptError
from shared.image.reading.arriving import ArrivingImage
from shared.image.reading.inspection import FoundImage, read_image
from tests.support.noise import noise
from tests.support.packing import Built, build_image, tar_of


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Of two layers: regions with gaps between them."""
    root = tmp_path_factory.mktemp("arriving")
    parts = [(f"f{number}", noise(9000, number)) for number in range(6)]
    hidden = tar_of(("f1", b"new"), ("f3", b"new"))
    return build_image([tar_of(*parts), hidden], root)


@pytest.fixture(scope="module")
def found(built: Built) -> FoundImage:
    return read_image(built.path)


def taken(found: FoundImage, content: bytes, cuts: list[int]) -> str:
    arriving = ArrivingImage(found)
    places = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    for start, end in pairwise(places):
        arriving.take(content[start:end])
    return arriving.content_digest()


@given(cuts=st.lists(st.integers(0, 1 << 20), max_size=20))
def test_however_it_comes_it_is_known(built: Built, found: FoundImage, cuts: list[int]) -> None:
    assert len(built.recipe.segments) == 2
    assert taken(found, built.path.read_bytes(), cuts) == built.content_digest


@settings(max_examples=300)
@given(data=st.data())
def test_no_byte_can_be_another(built: Built, found: FoundImage, data: st.DataObject) -> None:
    content = bytearray(built.path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    try:
        digest = taken(found, bytes(content), data.draw(st.lists(st.integers(0, 1 << 20))))
    except ImageCorruptError:
        return
    # Only the tables' own digest is not known before.
    assert at >= built.recipe.tables.offset
    assert digest != built.content_digest


@pytest.mark.parametrize("change", [-1, -5000, 1])
def test_no_more_and_no_less(built: Built, found: FoundImage, change: int) -> None:
    content = built.path.read_bytes()
    content = content[:change] if change < 0 else content + bytes(change)
    with pytest.raises(ImageCorruptError):
        taken(found, content, [100, 5000])


def test_an_image_that_says_nothing_is_refused(found: FoundImage) -> None:
    with pytest.raises(ImageCorruptError):
        ArrivingImage(FoundImage(Path("x"), found.size, found.superblock, None))
