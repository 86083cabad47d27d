"""How layers lie over each other, case by case, with the result written out by hand."""

import tarfile
import threading
from pathlib import Path

import pytest

from shared.image.codecs import block_codec
from shared.image.errors import ImageInvalidError, ImageUnsupportedError
from shared.image.packs.pack import read_index
from shared.image.planning.plan import plan_image
from shared.image.reading.reader import SquashImage
from shared.image.recipe import ImageConfig
from tests.support.packing import (
    KEEP_ALL,
    SOURCE,
    Part,
    add_pack,
    build_image,
    directory,
    hard_link,
    member,
    symlink,
    tar_of,
)
from tests.support.trees import Rows, image_rows

OLD = b"old"
NEW = b"new"


def built(tmp_path: Path, *layers: list[Part]) -> Rows:
    return image_rows(build_image([tar_of(*layer) for layer in layers], tmp_path).path)


def paths(rows: Rows) -> set[str]:
    return {path.decode() for path in rows if path}


def size(rows: Rows, path: bytes) -> int:
    detail = rows[path].detail
    assert isinstance(detail, tuple)
    return int(detail[0])


def test_an_image_without_any_entry_has_an_empty_root(tmp_path: Path) -> None:
    rows = built(tmp_path, [])
    assert set(rows) == {b""}
    assert (rows[b""].kind, rows[b""].mode, rows[b""].links) == ("d", 0o755, 2)


def test_a_whiteout_hides_lower_layers_only_wherever_it_stands(tmp_path: Path) -> None:
    rows = built(
        tmp_path, [("a", OLD), ("b", OLD)], [("a", NEW * 2), (".wh.a", b""), (".wh.b", b"")]
    )
    assert paths(rows) == {"a"}
    assert size(rows, b"a") == 6


def test_an_opaque_directory_keeps_its_own_layers_files(tmp_path: Path) -> None:
    rows = built(tmp_path, [("d/old", OLD)], [("d/new", NEW), ("d/.wh..wh..opq", b"")])
    assert paths(rows) == {"d", "d/new"}


def test_an_opaque_mark_in_the_root_hides_everything_below(tmp_path: Path) -> None:
    rows = built(tmp_path, [("d/old", OLD), ("f", OLD)], [(".wh..wh..opq", b""), ("g", NEW)])
    assert paths(rows) == {"g"}


def test_what_aufs_left_behind_is_neither_a_file_nor_a_whiteout(tmp_path: Path) -> None:
    leftovers: list[Part] = [
        directory(".wh..wh.plnk"),
        (".wh..wh.plnk/12.34", b"x"),
        (".wh..wh.orph", b""),
        (".wh..wh.aufs", b""),
    ]
    assert paths(built(tmp_path, [("f", OLD), *leftovers])) == {"f"}


def test_a_type_changes_both_ways(tmp_path: Path) -> None:
    rows = built(
        tmp_path,
        [("dir/below", OLD), ("file", OLD), symlink("link", "dir")],
        [("dir", NEW), directory("file"), ("file/below", NEW), directory("link")],
    )
    assert paths(rows) == {"dir", "file", "file/below", "link"}
    assert (rows[b"dir"].kind, rows[b"file"].kind, rows[b"link"].kind) == ("f", "d", "d")


def test_a_directory_over_a_directory_only_changes_its_attributes(tmp_path: Path) -> None:
    rows = built(tmp_path, [directory("d"), ("d/f", OLD)], [directory("d", mode=0o700, mtime=7)])
    assert paths(rows) == {"d", "d/f"}
    assert (rows[b"d"].mode, rows[b"d"].mtime) == (0o700, 7)


def test_an_implicit_directory_keeps_what_a_lower_layer_said(tmp_path: Path) -> None:
    rows = built(tmp_path, [directory("d", mode=0o711, mtime=7)], [("d/e/f", NEW)])
    assert (rows[b"d"].mode, rows[b"d"].mtime) == (0o711, 7)
    assert (rows[b"d/e"].mode, rows[b"d/e"].mtime, rows[b"d/e"].uid) == (0o755, 0, 0)


def test_parents_that_are_symlinks_are_followed_inside_the_root(tmp_path: Path) -> None:
    rows = built(
        tmp_path,
        [directory("usr/lib"), symlink("lib", "/usr/lib"), symlink("up", "../../../usr")],
        [("lib/f", NEW), ("up/g", NEW), ("lib/.wh.none", b"")],
    )
    assert {"usr/lib/f", "usr/g"} <= paths(rows)
    assert (rows[b"lib"].kind, rows[b"up"].kind) == ("l", "l")


def test_the_root_can_be_described(tmp_path: Path) -> None:
    rows = built(tmp_path, [directory("./", mode=0o711, uid=5, gid=6, mtime=9)])
    root = rows[b""]
    assert (root.mode, root.uid, root.gid, root.mtime) == (0o711, 5, 6, 9)


def test_a_hard_link_to_a_lower_layer_is_the_same_inode(tmp_path: Path) -> None:
    rows = built(
        tmp_path, [("a", OLD), symlink("s", "x")], [hard_link("b", "a"), hard_link("t", "s")]
    )
    assert rows[b"a"] == rows[b"b"]
    assert (rows[b"a"].links, rows[b"t"].links, rows[b"t"].kind) == (2, 2, "l")


def test_a_hard_link_survives_its_targets_removal(tmp_path: Path) -> None:
    rows = built(tmp_path, [("a", OLD), hard_link("b", "a")], [(".wh.a", b"")])
    assert paths(rows) == {"b"}
    assert rows[b"b"].links == 1


@pytest.mark.parametrize("target", ["missing", "d", "missing/x", ""])
def test_a_hard_link_to_no_file_is_named(tmp_path: Path, target: str) -> None:
    with pytest.raises(ImageInvalidError, match="hard link"):
        built(tmp_path, [directory("d"), hard_link("b", target)])


def test_a_loop_of_symlinks_is_no_parent(tmp_path: Path) -> None:
    with pytest.raises(ImageInvalidError, match="too many symlinks"):
        built(tmp_path, [symlink("a", "b"), symlink("b", "a")], [("a/f", NEW)])


def test_a_dropped_device_still_hides_what_was_there_and_takes_its_links_along(
    tmp_path: Path,
) -> None:
    options = KEEP_ALL.model_copy(update={"keep_devices": False})
    upper = tar_of(member("null", tarfile.CHRTYPE), hard_link("other", "null"), ("kept", NEW))
    image = build_image([tar_of(("null", OLD)), upper], tmp_path, options)
    assert paths(image_rows(image.path)) == {"kept"}


def test_a_layer_that_occurs_twice_has_its_data_once(tmp_path: Path) -> None:
    layer = tar_of(("f", bytes(range(256)) * 64))
    image = build_image([layer, tar_of((".wh.f", b"")), layer], tmp_path)
    assert len(image.recipe.segments) == 1
    assert paths(image_rows(image.path)) == {"f"}


def test_packs_with_other_blocks_are_not_mixed(tmp_path: Path) -> None:
    image = build_image([tar_of(("f", OLD))], tmp_path)
    other = KEEP_ALL.model_copy(update={"block_size": 8192})
    key = add_pack(image.store, tar_of(("f", OLD)), other)
    image.store.pack_path(key).replace(image.store.root / "fresh.pack")
    with pytest.raises(ImageInvalidError, match="other blocks"):
        plan_with(image.store.root / "fresh.pack", key)


def plan_with(path: Path, key: str) -> None:
    plan_image(
        [(key, read_index(path, key))],
        options=KEEP_ALL,
        max_dead_share=1,
        config=ImageConfig(),
        source=SOURCE,
        codec=block_codec("zstd"),
        open_pack=lambda _: path.open("rb"),
        cancelled=threading.Event(),
    )


def test_more_owners_than_squashfs_knows_are_refused(tmp_path: Path) -> None:
    entries: list[Part] = [directory(f"d{n}", uid=n + 1, gid=n + 1) for n in range(65_536)]
    with pytest.raises(ImageUnsupportedError, match="65,535"):
        built(tmp_path, entries)


def test_a_directory_that_needs_an_index_lists_all_its_names(tmp_path: Path) -> None:
    names = [f"a-rather-long-name-for-a-file-{n:06}" for n in range(3000)]
    image = build_image([tar_of(*[(name, b"") for name in names])], tmp_path)
    with SquashImage(image.path) as opened:
        assert [found.path.decode() for found in opened.walk()][1:] == names
