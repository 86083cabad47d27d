"""Random stacks of layers against the independent model: the overlay semantics as a whole."""

import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.image.errors import ImageInvalidError
from shared.image.recipe import PackOptions
from tests.support.overlay_model import DoesNotFitError, expected_rows
from tests.support.packing import (
    KEEP_ALL,
    Part,
    build_image,
    directory,
    hard_link,
    member,
    symlink,
    tar_of,
)
from tests.support.trees import image_rows


def whiteout(path: str) -> tuple[str, bytes]:
    parent, _, name = path.rpartition("/")
    return f"{parent}/.wh.{name}", b""


def opaque(path: str) -> tuple[str, bytes]:
    return f"{path}/.wh..wh..opq", b""


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.sampled_from(["a", "/b", "../c", "b/c", "/a/b", "..", "x"])
SIZES = st.sampled_from([0, 1, 4095, 4096, 4097, 9000])
CONTENTS = st.builds(lambda byte, size: bytes([byte]) * size, st.integers(0, 255), SIZES)
MTIMES = st.sampled_from([-5, 0, 1_600_000_000, 1 << 33])
FILES = st.tuples(PATHS, CONTENTS)
OTHERS = st.one_of(
    st.builds(directory, PATHS, mode=st.sampled_from([0o700, 0o2755]), mtime=MTIMES),
    st.builds(symlink, PATHS, TARGETS),
    st.builds(lambda path: member(path, tarfile.FIFOTYPE), PATHS),
    st.builds(lambda path: member(path, tarfile.CHRTYPE, devmajor=5, devminor=300), PATHS),
    st.builds(whiteout, PATHS),
    st.builds(opaque, PATHS),
)


@st.composite
def stacks(draw: st.DrawFn) -> list[list[Part]]:
    """Hard links mostly go to files that are there, or hardly any stack would fit together."""
    files: list[str] = []
    stack: list[list[Part]] = []
    for _ in range(draw(st.integers(1, 4))):
        layer: list[Part] = []
        for _ in range(draw(st.integers(0, 7))):
            sort = draw(st.integers(0, 11))
            if sort < 4:
                name, content = draw(FILES)
                files.append(name)
                layer.append((name, content))
            elif sort == 4 and files:
                layer.append(hard_link(draw(PATHS), draw(st.sampled_from(files))))
            elif sort == 5 and files:
                # The way a file is moved, or made a link before its name goes.
                target = draw(st.sampled_from(files))
                layer += [hard_link(draw(PATHS), target), whiteout(target)]
            elif sort == 6:
                # The way a directory is emptied, or put in the place of something else.
                path = draw(PATHS)
                layer += [directory(path), opaque(path)]
            else:
                layer.append(draw(OTHERS))
        stack.append(layer)
    return stack


STRICT = PackOptions(block_size=4096, compression="gzip")


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stacks(), st.sampled_from([KEEP_ALL, STRICT]))
def test_a_random_stack_becomes_the_tree_that_plain_tar_logic_expects(
    stack: list[list[Part]], options: PackOptions
) -> None:
    layers = [tar_of(*entries) for entries in stack]
    try:
        expected = expected_rows(layers, options)
    except DoesNotFitError:
        expected = None
    with tempfile.TemporaryDirectory() as place:
        if expected is None:
            with pytest.raises(ImageInvalidError):
                build_image(layers, Path(place), options)
        else:
            assert image_rows(build_image(layers, Path(place), options).path) == expected
