"""Removing a tree touches nothing outside of it, whoever changes it meanwhile."""

import os
import stat
from pathlib import Path
from typing import Self

import pytest

from services.node_agent.unmount import remove_tree


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory that has nothing to do with the tree."""
    directory = tmp_path / "victim"
    directory.mkdir()
    (directory / "file").write_text("precious")
    directory.chmod(0o555)
    return directory


def untouched(victim: Path) -> bool:
    mode = stat.S_IMODE(victim.stat().st_mode)
    return mode == 0o555 and (victim / "file").read_text() == "precious"


def test_a_tree_with_everything_in_it_is_removed(tmp_path: Path, victim: Path) -> None:
    tree = tmp_path / "tree"
    deep = tree
    for _ in range(200):
        deep /= "d"
    deep.mkdir(parents=True)
    (tree / "file").touch()
    (tree / "link").symlink_to(victim)
    os.mkfifo(tree / "pipe")
    deep.chmod(0)
    (tree / "d").chmod(0o500)
    remove_tree(tree)
    assert not tree.exists()
    assert untouched(victim)
    remove_tree(tree)


def test_a_link_in_place_of_the_tree_is_not_followed(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "tree").symlink_to(victim)
    with pytest.raises(OSError, match="tree"):
        remove_tree(tmp_path / "tree")
    assert untouched(victim)


def test_a_link_that_takes_a_directorys_place_is_not_followed(
    tmp_path: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swapped between the look at it and the change, which is when it matters."""
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d").chmod(0)
    real_scandir, swapped = os.scandir, []

    class Swapping:
        def __init__(self, where: int) -> None:
            self.entries = real_scandir(where)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.entries.close()

        def __iter__(self) -> Self:
            return self

        def __next__(self) -> "os.DirEntry[str]":
            entry = next(self.entries)
            assert entry.is_dir(follow_symlinks=False)
            (tree / "d").rename(tmp_path / "away")
            (tree / "d").symlink_to(victim)
            swapped.append(entry.name)
            return entry

    monkeypatch.setattr(os, "scandir", Swapping)
    with pytest.raises(OSError, match="'d'"):
        remove_tree(tree)
    assert swapped == ["d"]
    assert untouched(victim)
