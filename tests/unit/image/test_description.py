"""What an image says of itself: read back as written, and never believed further than it checks."""

import hashlib
import json
import os
import shutil
import struct
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import DrayError
from shared.image.codecs import Zstd
from shared.image.description import (
    FOOTER_SIZE,
    MAGIC,
    Description,
    UsedOptions,
    decode,
    document_length,
    encode,
)
from shared.image.errors import ImageCorruptError, ImageTooLargeError, ImageUnsupportedError
from shared.image.planning.shares import layer_shares
from shared.image.reading.inspection import FoundImage, read_image, verify_by_itself
from shared.image.recipe import ImageConfig, PackOptions, Tables
from tests.support.packing import KEEP_ALL, SOURCE, Built, build_image, tar_of
from tests.support.squashfs import small_tree

NOISE = os.urandom(20_000)
LAYERS = [tar_of(("a", NOISE), ("b", b"below")), tar_of(("b", b"above")), tar_of(("c", b"c"))]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    # The lowest layer once more on top: its pack occurs twice.
    return build_image([*LAYERS, LAYERS[0]], tmp_path_factory.mktemp("image"))


@pytest.fixture
def copy(built: Built, tmp_path: Path) -> Path:
    return Path(shutil.copy(built.path, tmp_path / "copy.squashfs"))


def described(image: FoundImage) -> Description:
    assert image.description is not None
    return image.description


def verified(path: Path) -> str:
    return verify_by_itself(read_image(path), threading.Event())


def test_a_file_tells_what_its_recipe_told(built: Built) -> None:
    image = read_image(built.path)
    said, recipe = described(image), built.recipe
    assert image.size == recipe.size == built.path.stat().st_size
    assert image.size % 4096 == 0
    assert (said.image_id, said.inodes) == (recipe.image_id, recipe.inodes)
    assert (said.layers, said.segments, said.config) == (
        recipe.layers,
        recipe.segments,
        recipe.config,
    )
    assert PackOptions(**dict(said.options)) == KEEP_ALL
    assert said.source.layers == recipe.source.layers
    assert verified(built.path) == recipe.content_digest


def test_shares_count_bytes_once_and_tell_the_dead(tmp_path: Path) -> None:
    hidden = tar_of(("a", os.urandom(20_000)))
    recipe = build_image([LAYERS[0], hidden, LAYERS[1], hidden], tmp_path).recipe
    first, second, third, again = layer_shares(recipe.layers, recipe.segments)
    assert first.dead >= len(NOISE)
    assert second.dead == third.left_out == 0
    assert (second.pack, again.size, again.pieces, again.dead) == (again.pack, 0, 0, 0)
    assert sum(share.size for share in (first, second, third, again)) == sum(
        segment.length for segment in recipe.segments
    )


@pytest.mark.parametrize("options", [KEEP_ALL, KEEP_ALL.model_copy(update={"compression": "gzip"})])
def test_other_readers_do_not_mind(options: PackOptions, tmp_path: Path) -> None:
    if shutil.which("unsquashfs") is None:
        pytest.skip("unsquashfs is missing: install squashfs-tools")
    path = build_image(LAYERS, tmp_path, options).path
    used = read_image(path).superblock.bytes_used
    stat = subprocess.run(["unsquashfs", "-s", path], capture_output=True, text=True, check=True)
    assert f"Filesystem size {used} bytes" in stat.stdout
    subprocess.run(
        ["unsquashfs", "-quiet", "-no-xattrs", "-d", tmp_path / "out", path],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "out/a").read_bytes() == NOISE
    assert (tmp_path / "out/b").read_bytes() == b"above"


def test_an_image_of_another_program_says_nothing_of_itself(tmp_path: Path) -> None:
    if shutil.which("mksquashfs") is None:
        pytest.skip("mksquashfs is missing: install squashfs-tools")
    tree, path = small_tree(tmp_path / "tree", hello="x"), tmp_path / "image"
    subprocess.run(["mksquashfs", tree, path, "-quiet"], check=True, capture_output=True)
    image = read_image(path)
    assert (image.description, image.superblock.inodes) == (None, 2)
    with pytest.raises(ImageCorruptError, match="Dray did not make it"):
        verify_by_itself(image, threading.Event())


def test_every_changed_byte_is_noticed(built: Built, copy: Path) -> None:
    recipe = built.recipe
    image = read_image(built.path)
    first, tables = recipe.segments[0], described(image).tables
    places = {
        "superblock": 40,
        "padding": 1000,
        "data": first.offset + first.length // 2,
        "gap": first.offset + first.length + 1,
        "tables": tables.offset + 3,
        "padding behind the tables": tables.offset + tables.length + 1,
        "document": image.size - image.document + 2,
        "footer": image.size - 3,
    }
    for what, place in places.items():
        _flip(copy, place)
        with pytest.raises(DrayError):
            pytest.fail(f"{what}: {verified(copy)}")
        _flip(copy, place)
    assert verified(copy) == recipe.content_digest


def _flip(path: Path, place: int) -> None:
    with path.open("rb+") as file:
        file.seek(place)
        old = file.read(1)
        file.seek(place)
        file.write(bytes([old[0] ^ 0x55]))


@pytest.mark.parametrize("cut", [1, FOOTER_SIZE, 4095])
def test_without_its_end_a_file_says_nothing(cut: int, copy: Path) -> None:
    os.truncate(copy, max(copy.stat().st_size - cut, read_image(copy).superblock.bytes_used))
    assert read_image(copy).description is None


def test_a_file_that_is_cut_short_within_is_told(copy: Path) -> None:
    os.truncate(copy, read_image(copy).superblock.bytes_used - 1)
    with pytest.raises(ImageCorruptError, match="cut short"):
        read_image(copy)


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_file_is_refused_without_waiting(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with pytest.raises(ImageCorruptError, match="no file"):
        read_image(path)


def footer(version: int, stored: int, size: int, document: bytes = b"") -> bytes:
    head = struct.pack("<8sIII", MAGIC, version, stored, size)
    return head + hashlib.sha256(document + head).digest()


def test_lengths_are_not_believed(copy: Path) -> None:
    size = copy.stat().st_size
    for stored in (size, 1 << 20, (1 << 32) - 1):
        with copy.open("rb+") as file:
            file.seek(size - FOOTER_SIZE)
            file.write(footer(1, stored, 1))
        with pytest.raises(ImageCorruptError, match="impossible length"):
            read_image(copy)


def test_a_bomb_expands_to_no_more_than_it_may() -> None:
    stored = Zstd(3).compress(bytes(64 << 20))
    for claimed in (1, (1 << 32) - 1):
        document = stored + footer(1, len(stored), claimed, stored)
        with pytest.raises(ImageCorruptError):
            decode(document, "zstd")


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b"\xff", b"nul"])
def test_a_document_that_is_none_is_refused(text: bytes) -> None:
    stored = Zstd(3).compress(text)
    with pytest.raises(ImageCorruptError):
        decode(stored + footer(1, len(stored), len(text), stored), "zstd")


def test_a_later_version_is_named() -> None:
    with pytest.raises(ImageUnsupportedError, match="install a later version"):
        document_length(footer(2, 10, 10))


@given(st.binary(max_size=2 * FOOTER_SIZE))
def test_any_end_is_a_footer_or_none(raw: bytes) -> None:
    for end in (raw, MAGIC + raw):
        try:
            length = document_length(end)
        except DrayError:
            continue
        assert length is None or len(end) == FOOTER_SIZE


NUMBERS = st.one_of(st.integers(), st.integers(0, 1 << 20), st.sampled_from([2**63, 10**400]))
PLACES = ["tables.offset", "tables.length", "inodes", "formats.pack"] + [
    f"{kind}.{number}.{key}"
    for kind, keys in (("segments", "offset length source"), ("layers", "length live"))
    for number in (0, 2)
    for key in keys.split()
]


@given(st.dictionaries(st.sampled_from(PLACES), NUMBERS, min_size=1, max_size=3))
def test_a_forged_document_does_no_harm(built: Built, changes: dict[str, int]) -> None:
    """Everybody can make the checksum right."""
    image = read_image(built.path)
    said = json.loads(described(image).model_dump_json())
    for place, number in changes.items():
        *way, last = place.split(".")
        target = said
        for step in way:
            target = target[int(step)] if step.isdigit() else target[step]
        target[last] = number
    text = json.dumps(said).encode()
    stored = Zstd(1).compress(text)
    path = built.path.with_name("forged")
    content = built.path.read_bytes()[: image.size - image.document]
    path.write_bytes(content + stored + footer(1, len(stored), len(text), stored))
    with suppress(ImageCorruptError):
        forged = read_image(path)
        shares = layer_shares(described(forged).layers, described(forged).segments)
        assert all(share.dead <= share.size < 3 * image.size for share in shares)
        assert all(share.left_out < 1 << 63 for share in shares)
        verify_by_itself(forged, threading.Event())


def description(config: ImageConfig, end: int = 5000) -> Description:
    return Description(
        image_id="a" * 64,
        inodes=1,
        options=UsedOptions(),
        layers=(),
        superblock="00" * 96,
        segments=(),
        tables=Tables(offset=4096, length=end - 4096, sha256="b" * 64),
        config=config,
        source=SOURCE,
    )


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(TEXT), st.dictionaries(TEXT, TEXT), st.integers(4096, 20_000))
def test_whatever_the_config_says_comes_back(
    env: list[str], labels: dict[str, str], end: int
) -> None:
    said = description(ImageConfig(env=tuple(env), labels=labels), end)
    appended = encode(said, Zstd(3))
    assert (end + len(appended)) % 4096 == 0
    assert encode(said, Zstd(3)) == appended
    length = document_length(appended[-FOOTER_SIZE:])
    assert length is not None
    assert not any(appended[:-length])
    assert decode(appended[-length:], "zstd") == said


def test_a_config_without_measure_is_refused() -> None:
    with pytest.raises(ImageTooLargeError, match="environment and labels short"):
        encode(description(ImageConfig(workdir="x" * (1 << 20))), Zstd(3))


def test_options_of_a_later_version_are_left_alone() -> None:
    assert UsedOptions.model_validate({"level": 4, "smell": "sweet"}) == UsedOptions(level=4)
