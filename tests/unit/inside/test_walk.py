"""Paths of an image that would rather lead elsewhere."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.inside.errors import NotAssembledError
from shared.inside.walk import make_place, opened, resolve


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    image = tmp_path / "image"
    for name in ("a/b", "etc", "run"):
        (image / name).mkdir(parents=True)
    (image / "a/file").write_text("")
    links = {
        "abs": "/a/b",
        "rel": "a/b",
        "out": "../../../../..",
        "up": "a/../..",
        "loop": "loop",
        "ping": "pong",
        "pong": "ping",
        "a/back": "..",
        "etc/late": "../run/later/file",
        "dangling": "/nowhere/at/all",
    }
    for name, target in links.items():
        (image / name).symlink_to(target)
    (tmp_path / "secret").mkdir()
    fd = os.open(image, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "found", "missing"),
    [
        ("/a/b", ("a", "b"), ()),
        ("a//b/.", ("a", "b"), ()),
        ("/abs/x", ("a", "b"), ("x",)),
        ("/rel", ("a", "b"), ()),
        ("/out/a/b", ("a", "b"), ()),
        ("/out/secret", (), ("secret",)),
        ("/up/../a", ("a",), ()),
        ("/a/back/etc", ("etc",), ()),
        ("/etc/late", ("run",), ("later", "file")),
        ("/dangling/x", (), ("nowhere", "at", "all", "x")),
        ("/new/er", (), ("new", "er")),
        ("/", (), ()),
    ],
)
def test_a_path_stays_in_the_image(
    root: int, path: str, found: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    place = resolve(root, path)
    assert (place.found, place.missing) == (found, missing)


@pytest.mark.parametrize("path", ["/loop", "/ping/x", "/a/file/x", "/new/../x", "/abs/new/../../x"])
def test_what_leads_nowhere_is_an_error(root: int, path: str) -> None:
    with pytest.raises(NotAssembledError):
        resolve(root, path)


def test_a_link_at_the_end_may_be_meant_itself(root: int) -> None:
    assert resolve(root, "/abs", to_itself=True).found == ("abs",)
    assert resolve(root, "/abs/x", to_itself=True).names == ("a", "b", "x")


def test_what_is_opened_is_never_reached_by_a_link(root: int) -> None:
    for names in (("rel",), ("rel", "x")):
        with pytest.raises(NotAssembledError, match="link"), opened(root, names):
            pass


def test_places_are_made_beside_each_other(root: int) -> None:
    make_place(root, ("new", "one"), directory=True)
    make_place(root, ("new", "two"), directory=False)
    assert resolve(root, "/new/one").directory
    assert not resolve(root, "/new/two").directory
    with pytest.raises(OSError):  # noqa: PT011 - whichever it is
        make_place(root, ("rel", "through"), directory=True)


NAMES = st.sampled_from(
    ["a", "b", "abs", "rel", "out", "up", "back", "etc", "late", "..", ".", "new"]
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None
)
@given(st.lists(NAMES, max_size=8))
def test_no_path_leads_out(root: int, names: list[str]) -> None:
    try:
        place = resolve(root, "/".join(names))
    except NotAssembledError:
        return
    assert "secret" not in place.found
    with opened(root, place.found) as fd:
        top, there = (Path(f"/proc/self/fd/{each}").readlink() for each in (root, fd))
    assert there.is_relative_to(top)
