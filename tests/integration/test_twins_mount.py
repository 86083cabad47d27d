"""The kernel reads files that share their blocks, also where dead data have been left out."""

import os
import random
from pathlib import Path

import pytest

from shared.image.recipe import Compression
from tests.support.mounts import assert_same, mounted
from tests.support.overlay_model import expected_rows
from tests.support.packing import KEEP_ALL, Part, build_image, tar_of
from tests.support.trees import mount_rows

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
]

RANDOM = random.Random(5)
CONTENTS = [
    RANDOM.randbytes(300_000),
    RANDOM.randbytes(2000),
    b"".join(b"%d green bottles\n" % RANDOM.randrange(10**9) for _ in range(30_000)),
    bytes(400_000),
    RANDOM.randbytes(140_000) + bytes(262_144) + RANDOM.randbytes(5000),
]


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.parametrize("block_size", [4096, 131_072])
def test_twins_read_as_they_were(tmp_path: Path, compression: Compression, block_size: int) -> None:
    options = KEEP_ALL.model_copy(update={"compression": compression, "block_size": block_size})
    lower: list[Part] = [
        (f"{copy}/{n}", content) for copy in "abc" for n, content in enumerate(CONTENTS)
    ]
    # The first of some twins go, the last of others: what is left must still be there.
    upper: list[Part] = [("a/.wh.0", b""), ("a/.wh.1", b""), ("c/2", b"new"), ("c/.wh.4", b"")]
    layers = [tar_of(*lower), tar_of(*upper)]
    built = build_image(layers, tmp_path, options)
    assert built.recipe.size < 1.3 * sum(map(len, CONTENTS))
    with mounted(built.path, tmp_path / "mnt") as root:
        assert_same(mount_rows(root), expected_rows(layers, options))
