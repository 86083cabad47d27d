"""What `lfs` is asked, in the options of Lustre's manual pages, and how its answers are read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.distributor.layouts import is_hot, is_lustre, wanted_layout
from services.distributor.lfs import (
    Wanted,
    create_arguments,
    layout_in,
    read_arguments,
    resync_arguments,
    warm_arguments,
)
from shared.layout import PlacedLayout
from shared.settings.layout import LayoutSettings
from tests.support.lfs import MIRRORED, PLAIN

GIB = 1 << 30
FILE = Path("/lustre/images/.a.partial")


def test_a_file_is_made_with_setstripe() -> None:
    wanted = Wanted(stripes=4, stripe_size=4 << 20, pool="flash")
    assert create_arguments(wanted, FILE) == [
        *("setstripe", "-c", "4", "-i", "-1", "-S", "4194304", "-p", "flash"),
        str(FILE),
    ]
    assert create_arguments(Wanted(stripes=1), FILE) == [
        *("setstripe", "-c", "1", "-i", "-1"),
        str(FILE),
    ]


def test_a_file_with_mirrors_is_made_with_their_number_right_behind_its_option() -> None:
    wanted = Wanted(stripes=2, pool="flash", mirrors=3)
    assert create_arguments(wanted, FILE) == [
        *("mirror", "create", "-N3", "-c", "2", "-i", "-1", "-p", "flash"),
        str(FILE),
    ]


def test_the_other_questions() -> None:
    assert read_arguments(FILE) == ["getstripe", "--yaml", str(FILE)]
    assert resync_arguments(FILE) == ["mirror", "resync", str(FILE)]
    assert warm_arguments(FILE, 77) == [
        *("ladvise", "-a", "willread", "-b", "-s", "0", "-e", "77"),
        str(FILE),
    ]


@pytest.mark.parametrize(
    ("size", "stripes"),
    [(0, 1), (GIB - 1, 1), (GIB, 2), (4 * GIB, 3), (100 * GIB, 11), (1000 * GIB, 16)],
)
def test_stripes_grow_with_the_root_of_the_size(size: int, stripes: int) -> None:
    assert wanted_layout(size, LayoutSettings(), hot=True).stripes == stripes


def test_a_site_has_the_last_word() -> None:
    settings = LayoutSettings(stripe_count=-1, stripe_size=1 << 20, pool="flash", mirrors=2)
    wanted = wanted_layout(100 * GIB, settings, hot=True)
    assert wanted == Wanted(stripes=-1, stripe_size=1 << 20, pool="flash", mirrors=2)
    assert wanted_layout(100 * GIB, settings, hot=False).mirrors == 1
    assert wanted_layout(100 * GIB, LayoutSettings(max_stripes=4), hot=False).stripes == 4


def test_hot_images_are_named_by_their_references() -> None:
    settings = LayoutSettings(hot=("docker.io/library/*", "*:hot"))
    assert is_hot("docker.io/library/debian:12", settings)
    assert is_hot("example.org/team/app:hot", settings)
    assert not is_hot("example.org/team/app:1", settings)
    assert is_hot("anything", LayoutSettings())


@pytest.mark.parametrize("size", [0, 1000, 65535, 1 << 32])
def test_stripe_sizes_that_lustre_refuses_are_refused_at_the_start(size: int) -> None:
    with pytest.raises(ValueError, match="stripe_size"):
        LayoutSettings(stripe_size=size)


def test_layouts_are_read_as_lfs_shows_them() -> None:
    assert layout_in(PLAIN) == PlacedLayout(stripes=4, stripe_size=1 << 20, pool="flash")
    mirrored = layout_in(MIRRORED)
    assert (mirrored.stripes, mirrored.stripe_size, mirrored.mirrors) == (6, 1 << 20, 2)
    assert mirrored.pool == "flash"


@given(st.text(max_size=400))
def test_whatever_is_said_is_no_error(told: str) -> None:
    assert layout_in(told).mirrors >= 1
    assert layout_in(f"{told}\nlmm_stripe_count: 3").stripes is not None


def test_the_kernel_is_asked_what_a_directory_is_on(tmp_path: Path) -> None:
    assert not is_lustre(tmp_path, LayoutSettings())
    assert is_lustre(tmp_path, LayoutSettings(file_system="lustre"))
    assert not is_lustre(tmp_path, LayoutSettings(file_system="other"))
