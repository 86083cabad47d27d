"""What of an entry's attributes gets into an image, and what a site has to ask for."""

import tarfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.converter.packing import LayerInvalidError
from shared.image.recipe import PackOptions
from tests.support.packing import KEEP_ALL, build_image, directory, member, pack, symlink, tar_of
from tests.support.rawtar import END, base256, header, pax
from tests.support.trees import Row, image_rows


def packed_row(tmp_path: Path, tar: bytes, options: PackOptions, path: bytes = b"f") -> Row:
    return image_rows(build_image([tar], tmp_path, options).path)[path]


CAPABILITY = {
    "SCHILY.xattr.security.capability": "cap",
    "SCHILY.xattr.security.other": "o",
    "SCHILY.xattr.user.mine": "m",
    "SCHILY.xattr.system.posix_acl_access": "acl",
}
SPECIAL = tar_of((member("f", mode=0o7755, uid=5, gid=6, pax_headers=CAPABILITY), b"x"))


def test_by_default_nothing_privileged_gets_through(tmp_path: Path) -> None:
    row = packed_row(tmp_path, SPECIAL, PackOptions())
    assert (row.mode, row.uid, row.gid) == (0o1755, 0, 0)
    assert row.xattrs == ((b"user.mine", b"m"),)


def test_what_a_site_allows_gets_through(tmp_path: Path) -> None:
    row = packed_row(tmp_path, SPECIAL, KEEP_ALL)
    assert (row.mode, row.uid, row.gid) == (0o7755, 5, 6)
    assert {name for name, _ in row.xattrs} == {
        b"user.mine",
        b"security.other",
        b"security.capability",
    }


def test_a_prefix_does_not_cover_capabilities(tmp_path: Path) -> None:
    options = KEEP_ALL.model_copy(update={"xattrs": ("security.", "security.cap")})
    assert packed_row(tmp_path, SPECIAL, options).xattrs == ((b"security.other", b"o"),)


@pytest.mark.parametrize("name", ["system.posix_acl_access", "user", "capability", "", "user.\n"])
def test_attributes_that_squashfs_cannot_hold_are_refused_in_the_settings(name: str) -> None:
    with pytest.raises(ValidationError):
        PackOptions(xattrs=(name,))


def test_the_order_of_the_list_changes_no_key() -> None:
    one = PackOptions(xattrs=("user.", "security.capability", "user."))
    assert one == PackOptions(xattrs=("security.capability", "user."))


@pytest.mark.parametrize(
    ("xattrs", "kept"),
    [
        ((), set()),
        (("user.a",), {b"user.a"}),
        (("user.a.",), {b"user.a.b"}),
        (("user.",), {b"user.a", b"user.a.b", b"user.ab"}),
        (("security.",), {b"security.x"}),
        (("security.capability",), {b"security.capability"}),
        (("trusted.", "user.ab"), {b"trusted.t", b"user.ab"}),
    ],
)
def test_names_are_whole_and_prefixes_end_in_a_dot(
    tmp_path: Path, xattrs: tuple[str, ...], kept: set[bytes]
) -> None:
    names = ("user.a", "user.a.b", "user.ab", "user.", "trusted.t", "security.x", "system.s")
    records = {f"SCHILY.xattr.{name}": "v" for name in (*names, "security.capability")}
    tar = tar_of((member("f", pax_headers=records), b""))
    row = packed_row(tmp_path, tar, PackOptions(xattrs=xattrs))
    assert {name for name, _ in row.xattrs} == kept


def test_attributes_may_be_empty_large_binary_and_said_twice(tmp_path: Path) -> None:
    large = bytes(range(256)) * 256
    records = [
        (b"SCHILY.xattr.user.empty", b""),
        (b"SCHILY.xattr.user.large", large),
        (b"SCHILY.xattr.user.twice", b"first"),
        (b"SCHILY.xattr.user.twice", b"last"),
        (b"SCHILY.xattr.user.\xff=", b"="),
    ]
    row = packed_row(tmp_path, pax(*records) + header(b"f") + END, PackOptions())
    assert dict(row.xattrs) == {
        b"user.empty": b"",
        b"user.large": large,
        b"user.twice": b"last",
        b"user.\xff": b"==",
    }


MODES = [
    ({}, 0o7777, 0o1777),
    ({"keep_setuid": True}, 0o7777, 0o7777),
    ({"keep_setuid": True}, 0o4755, 0o4755),
    ({}, 0o2755, 0o755),
    ({}, 0o1777, 0o1777),
    ({}, 0, 0),
]


@pytest.mark.parametrize(("options", "said", "found"), MODES)
def test_modes_of_files_and_directories(
    tmp_path: Path, options: dict[str, bool], said: int, found: int
) -> None:
    tar = tar_of((member("f", mode=said), b""), directory("d", mode=said))
    rows = image_rows(build_image([tar], tmp_path, PackOptions(**options)).path)
    assert rows[b"f"].mode == rows[b"d"].mode == found


def test_a_private_root_locks_nobody_out_unless_owners_are_kept(tmp_path: Path) -> None:
    tar = tar_of(directory("./", mode=0o1700), directory("d", mode=0o700))
    rows = image_rows(build_image([tar], tmp_path / "a", PackOptions()).path)
    assert (rows[b""].mode, rows[b"d"].mode) == (0o1755, 0o700)
    kept = image_rows(build_image([tar], tmp_path / "b", KEEP_ALL).path)
    assert kept[b""].mode == 0o1700


def test_a_symlink_has_the_mode_that_linux_shows(tmp_path: Path) -> None:
    row = packed_row(tmp_path, tar_of(symlink("f", "x", mode=0o4000)), KEEP_ALL)
    assert row.mode == 0o777


LARGEST = (1 << 32) - 2


@pytest.mark.parametrize(
    ("said", "found"),
    [(0, 0), (65_536, 65_536), (LARGEST, LARGEST), (LARGEST + 1, 0), (-1, 0), (-2, LARGEST)],
)
def test_owners_have_32_bits(tmp_path: Path, said: int, found: int) -> None:
    tar = header(b"f", uid=base256(said, 8), gid=base256(said, 8)) + END
    row = packed_row(tmp_path, tar, KEEP_ALL)
    assert (row.uid, row.gid) == (found, found)
    (tmp_path / "all root").mkdir()
    assert packed_row(tmp_path / "all root", tar, PackOptions()).uid == 0


@pytest.mark.parametrize("number", [(0, 0), (1, 3), (4095, 0xFFFFF), (259, 256)])
def test_device_numbers_have_12_and_20_bits(tmp_path: Path, number: tuple[int, int]) -> None:
    tar = tar_of(member("f", tarfile.CHRTYPE, devmajor=number[0], devminor=number[1]))
    assert packed_row(tmp_path, tar, KEEP_ALL).detail == number
    (tmp_path / "dropped").mkdir()
    assert b"f" not in image_rows(build_image([tar], tmp_path / "dropped", PackOptions()).path)


REFUSED = {
    "major": tar_of(member("n", tarfile.CHRTYPE, devmajor=4096)),
    "minor": tar_of(member("n", tarfile.BLKTYPE, devminor=1 << 20)),
    "negative owner": tar_of(member("n", uid=-(1 << 31) - 1)),
    "absurd owner": tar_of(member("n", gid=1 << 32)),
    "attribute's name": pax((b"SCHILY.xattr.user." + b"n" * 251, b"v")) + header(b"f") + END,
    "attribute's value": pax((b"SCHILY.xattr.user.n", b"v" * 65_537)) + header(b"f") + END,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_file_system_can_hold_is_refused(tmp_path: Path, case: str) -> None:
    with pytest.raises(LayerInvalidError):
        pack(REFUSED[case], tmp_path / "p")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", ["major", "absurd owner", "attribute's name"])
def test_what_is_left_out_anyway_is_not_judged(tmp_path: Path, case: str) -> None:
    pack(REFUSED[case], tmp_path / "p", options=PackOptions(xattrs=()))
    assert (tmp_path / "p").exists()
