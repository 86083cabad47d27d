"""The table of nasty layers, read back by our own reader; the kernel has its turn elsewhere."""

from pathlib import Path

import pytest

from services.converter.packing.errors import LayerInvalidError
from shared.image.errors import ImageInvalidError
from tests.support import nasty_stacks, nasty_tars
from tests.support.nasty_stacks import gone
from tests.support.overlay_model import Inode, expected_rows, rows_of
from tests.support.packing import (
    KEEP_ALL,
    Part,
    build_image,
    directory,
    hard_link,
    symlink,
    tar_of,
)
from tests.support.rawtar import END, header, pax
from tests.support.trees import image_rows

CASES = nasty_stacks.CASES | nasty_tars.CASES


@pytest.mark.parametrize("name", CASES)
def test_a_nasty_image_is_what_its_layers_say(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    image = build_image(case.layers, tmp_path, KEEP_ALL)
    assert image_rows(image.path) == rows_of({b"": Inode("d"), **case.tree})


# The model ignores this on purpose: it is no rule for layers, only for what aufs wrote.
@pytest.mark.parametrize("name", sorted({*nasty_stacks.CASES} - {"hard links to what aufs kept"}))
def test_the_model_agrees_with_what_was_written_by_hand(name: str) -> None:
    case = nasty_stacks.CASES[name]
    assert expected_rows(case.layers, KEEP_ALL) == rows_of({b"": Inode("d"), **case.tree})


REFUSED: dict[str, list[Part]] = {
    "a whiteout of its own directory": [("d/.wh.", b"")],
    "a whiteout of a dot": [(".wh..", b"")],
    "a whiteout of the directory above": [("d/.wh...", b"")],
    "a symlink without a target": [symlink("s", "")],
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_no_runtime_unpacks_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LayerInvalidError):
        build_image([tar_of(*REFUSED[name])], tmp_path)


@pytest.mark.parametrize("flag", [b"M", b"N", b"A", b"Z", b"8", b"\xff"])
def test_an_entry_of_an_unknown_type_is_not_left_out_in_silence(
    tmp_path: Path, flag: bytes
) -> None:
    with pytest.raises(LayerInvalidError, match="unknown type"):
        build_image([header(b"a") + header(b"f", flag) + END], tmp_path)


@pytest.mark.parametrize(
    "tar",
    [
        pax((b"SCHILY.xattr.user.a\0b", b"x")) + header(b"f") + END,
        pax((b"linkpath", b"a\0b")) + header(b"f", b"2") + END,
        pax((b"linkpath", b"a\0b")) + header(b"f", b"1") + END,
        pax((b"mtime", b"1.5x")) + header(b"f") + END,
        pax((b"mtime", b"1e9")) + header(b"f") + END,
        pax((b"uid", b"-")) + header(b"f") + END,
        header(b"f", mode=b"-000644\0") + END,
        header(b"f", mode=b"0o00644\0") + END,
        header(b"f", mode=b"0_00644\0") + END,
        header(b"f", uid=b"\x80" + b"\xff" * 7) + END,
    ],
)
def test_headers_that_mean_nothing_are_refused(tmp_path: Path, tar: bytes) -> None:
    with pytest.raises(LayerInvalidError):
        build_image([tar], tmp_path)


CONTRADICTIONS: dict[str, list[list[Part]]] = {
    "a hard link to a file that comes later": [[hard_link("b", "a"), ("a", b"")]],
    "a hard link to itself": [[hard_link("a", "a")]],
    "a hard link to a directory": [[directory("d"), hard_link("b", "d")]],
    "a hard link to the root": [[hard_link("b", "/")]],
    "a hard link below a file": [[("a", b""), hard_link("b", "a/a")]],
    "a hard link to what a lower whiteout took": [
        [("a", b"")],
        [gone("a")],
        [hard_link("b", "a")],
    ],
    "a hard link to what aufs kept in another layer": [
        [(".wh..wh.plnk/1", b"")],
        [hard_link("b", ".wh..wh.plnk/1")],
    ],
    "a file in a loop of symlinks": [[symlink("a", "b"), symlink("b", "a")], [("a/f", b"")]],
    "a whiteout in a loop of symlinks": [[symlink("a", "a/b")], [gone("a/f")]],
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_layers_that_contradict_each_other_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageInvalidError):
        build_image([tar_of(*layer) for layer in CONTRADICTIONS[name]], tmp_path)
