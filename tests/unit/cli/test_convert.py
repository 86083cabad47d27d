"""`dray convert`'s options as the settings that a system has, and its progress as it is drawn."""

import time
from dataclasses import replace

import pytest

from cli.convert_command import convert
from cli.convert_options import Words, pack_options
from cli.convert_progress import Meter, Watching
from cli.errors import UsageError
from shared.image.recipe import PackOptions
from shared.progress import Part
from shared.states import State

UNSAID = Words(
    owners="root",
    setuid="strip",
    devices="drop",
    xattrs=None,
    compression="zstd",
    level=None,
    block_size=None,
)


def test_what_is_not_said_is_as_for_a_system() -> None:
    assert pack_options(UNSAID) == PackOptions()
    assert convert.__defaults__ is not None
    assert convert.__defaults__[:5] == ("root", "strip", None, "drop", "zstd")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("none", ()),
        ("user.", ("user.",)),
        ("user.*", ("user.",)),
        ("user.a, trusted.,user.a", ("trusted.", "user.a")),
        ("security.capability", ("security.capability",)),
        ("all", ("security.", "security.capability", "trusted.", "user.")),
    ],
)
def test_attributes_are_named_in_any_order(text: str, names: tuple[str, ...]) -> None:
    assert pack_options(replace(UNSAID, xattrs=text)).xattrs == names


@pytest.mark.parametrize(
    "text", ["", "user.a*", "user.*.b", "system.posix_acl", "user", "user.,,", "*"]
)
def test_attributes_that_squashfs_cannot_hold_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--xattrs"):
        pack_options(replace(UNSAID, xattrs=text))


@pytest.mark.parametrize(
    ("text", "size"),
    [("128K", 131072), ("131072", 131072), ("1M", 1 << 20), ("4k", 4096), ("64KiB", 65536)],
)
def test_block_sizes(text: str, size: int) -> None:
    assert pack_options(replace(UNSAID, block_size=text)).block_size == size


@pytest.mark.parametrize("text", ["", "0", "2K", "3K", "2M", "128 K", "-4K", "128G", "1e5", "٤K"])
def test_other_block_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="power of two"):
        pack_options(replace(UNSAID, block_size=text))


def test_a_layer_counts_as_reused_only_if_it_was_never_made() -> None:
    meter = Meter(drawn=False)
    watching: Watching = meter._watching
    watching.expect({"a": Part(10, 10), "b": Part(20, 20, cached=True)})
    # A damaged pack was found: everything is looked at again, and one is made anew.
    watching.expect({"a": Part(10, 10, cached=True), "b": Part(20, 5)})
    assert (meter.layers, meter.reused) == (2, 0)


def test_progress_is_told_by_bytes() -> None:
    watching = Watching(began=time.monotonic() - 1)
    watching.expect({"a": Part(10, 4), "b": Part(20, 20, cached=True)})
    now = watching.now()
    assert now.state is State.PULLING
    assert now.progress is not None
    assert (now.progress.done, now.progress.total) == (24, 30)
    watching.enter(State.TRANSFER, Part(100, 60))
    now = watching.now()
    assert now.progress is not None
    assert (now.state, now.progress.done, now.progress.total) == (State.TRANSFER, 60, 100)
    assert now.progress.rate > 0
