"""The kernel and squashfs-tools read our images, and see exactly what the layers say.

Each stack is packed, planned and woven, mounted by loop device, and compared path by path with
what plain tar logic expects: type, mode, owner, time, links, xattrs and content.
"""

import os
import random
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest

from shared.image.making.verify import verify_image
from shared.image.making.weave import weave
from shared.image.recipe import Compression, PackOptions
from tests.support.mounts import assert_same, mounted
from tests.support.overlay_model import expected_rows
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
from tests.support.rawtar import old_sparse_header, padded
from tests.support.trees import image_rows, mount_rows

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
]

RANDOM = random.Random(11)
NOISE = RANDOM.randbytes(300_001)
TEXT = b"all work and no play " * 20_000


def xattrs(**values: str) -> dict[str, str]:
    return {f"SCHILY.xattr.{name.replace('_', '.')}": value for name, value in values.items()}


def files() -> list[list[Part]]:
    sizes = (0, 1, 4095, 4096, 4097, 8192, 131_071, 131_072, 131_073, 300_000)
    lower: list[Part] = [directory("data", mtime=5)]
    lower += [(f"data/noise{size}", NOISE[:size]) for size in sizes]
    lower += [(f"data/text{size}", TEXT[:size]) for size in sizes]
    lower += [(f"data/zeros{size}", bytes(size)) for size in sizes]
    lower.append(("data/mixed", NOISE[:131_072] + bytes(262_144) + TEXT[:5]))
    return [lower, [("data/text1", NOISE), ("data/.wh.noise4096", b"")]]


def attributes() -> list[list[Part]]:
    return [
        [
            directory("./", mode=0o711, uid=1, gid=2, mtime=3),
            directory("d", mode=0o2775, uid=70_000, gid=80_000, pax_headers=xattrs(user_d="v")),
            (member("d/setuid", mode=0o6755, uid=0), b"x"),
            (member("d/old", mtime=-1), b"x"),
            (member("d/future", mtime=1 << 33), b"x"),
            (member("d/x", pax_headers=xattrs(user_a="1", trusted_b="2" * 500)), b"x"),
            (member("d/y", pax_headers=xattrs(trusted_b="2" * 500, user_a="1")), b"x"),
            (member("d/z", pax_headers=xattrs(user_a="other")), TEXT),
            symlink("d/link", "nowhere/../at//all", pax_headers=xattrs(trusted_l="s")),
            symlink("d/long", "t" * 4000),
            member("d/pipe", tarfile.FIFOTYPE, mode=0o600),
            member("d/pipe+", tarfile.FIFOTYPE, pax_headers=xattrs(trusted_p="p")),
            member("d/char", tarfile.CHRTYPE, devmajor=10, devminor=300),
            member("d/block", tarfile.BLKTYPE, devmajor=259, devminor=70_000),
            member("d/char+", tarfile.CHRTYPE, devmajor=1, pax_headers=xattrs(trusted_c="c")),
            (b"\xff\xfename".decode("utf-8", "surrogateescape"), b"not UTF-8"),
            ("n" * 255, b"longest"),
            ("deep/" * 200 + "f", b"deep"),
        ]
    ]


def many_xattrs() -> list[list[Part]]:
    """More than one metadata block of sets and of values."""
    values = [xattrs(user_n=str(n), trusted_long=chr(65 + n % 26) * 3000) for n in range(700)]
    return [[(member(f"f{n}", pax_headers=value), b"") for n, value in enumerate(values)]]


def changes() -> list[list[Part]]:
    return [
        [
            directory("usr/lib"),
            ("usr/lib/a", b"a"),
            symlink("lib", "usr/lib"),
            ("file", TEXT),
            directory("dir"),
            ("dir/gone", b"x"),
            hard_link("dir/linked", "file"),
            directory("opaque"),
            ("opaque/old", b"x"),
        ],
        [
            ("lib/b", b"b"),
            (".wh.file", b""),
            ("dir", b"now a file"),
            hard_link("again", "usr/lib/a"),
            hard_link("link", "lib"),
            ("opaque/new", b"x"),
            ("opaque/.wh..wh..opq", b""),
        ],
        [
            directory("dir", mode=0o700),
            ("dir/back", b"x"),
            hard_link("dir/third", "again"),
            ("usr/lib/.wh.b", b""),
            ("again", b"first one"),
            ("again", b"the second one wins"),
        ],
    ]


def crowds() -> list[list[Part]]:
    """Directories that need an index, runs of both limits, and inodes far from each other."""
    names = [f"{'long-name-' * 8}{n:05}" for n in range(6000)]
    crowd: list[Part] = [(f"crowd/{name}", b"") for name in names]
    crowd += [directory(f"dirs/{n}") for n in range(1000)]
    crowd += [(f"dirs/{n}/f", b"%d" % n) for n in range(1000)]
    crowd += [member(f"pipes/{n}", tarfile.FIFOTYPE) for n in range(600)]
    crowd += [hard_link(f"links/{n}", "pipes/0") for n in range(600)]
    return [crowd, [hard_link(f"crowd/+{n}", f"dirs/{n}/f") for n in range(0, 1000, 7)]]


STACKS: dict[str, list[list[Part]]] = {
    "empty": [[]],
    "files": files(),
    "attributes": attributes(),
    "xattrs": many_xattrs(),
    "changes": changes(),
    "crowds": crowds(),
}
OPTIONS = {
    "zstd": KEEP_ALL.model_copy(update={"block_size": 131_072}),
    "gzip": KEEP_ALL.model_copy(update={"block_size": 131_072, "compression": "gzip"}),
    "small blocks": KEEP_ALL,
    "zlib": KEEP_ALL.model_copy(update={"compression": "gzip", "level": 9}),
    "large blocks": KEEP_ALL.model_copy(update={"block_size": 1 << 20, "level": 19}),
    "defaults": PackOptions(),
}


# Crowds are a matter of tables, which know no sizes of blocks; and they take their time.
CASES = [
    (stack, options)
    for stack in STACKS
    for options in OPTIONS
    if stack != "crowds" or options in ("zstd", "gzip")
]


@pytest.mark.parametrize(("stack", "options"), CASES)
def test_the_kernel_sees_what_the_layers_say(tmp_path: Path, stack: str, options: str) -> None:
    layers = [tar_of(*layer) for layer in STACKS[stack]]
    expected = expected_rows(layers, OPTIONS[options])
    image = build_image(layers, tmp_path, OPTIONS[options])
    assert_same(image_rows(image.path), expected)
    with mounted(image.path, tmp_path / "mnt") as root:
        assert_same(mount_rows(root), expected)


def test_the_kernel_reads_a_sparse_file_of_many_gigabytes(tmp_path: Path) -> None:
    size = 6 << 30
    regions = [(0, 100), ((5 << 30) + 77, 5000), (size - 3, 3)]
    stored = NOISE[: sum(length for _, length in regions)]
    tar = old_sparse_header(b"f", regions, 0, len(stored))
    # Octal has no room for such a size: it is written in base 256.
    huge = b"\x80" + size.to_bytes(11, "big")
    tar = resummed(tar[:483] + huge + tar[495:])
    image = build_image([tar + padded(stored) + bytes(1024)], tmp_path, OPTIONS["zstd"])
    with mounted(image.path, tmp_path / "mnt") as root, (root / "f").open("rb") as file:
        status = os.fstat(file.fileno())
        assert status.st_size == size
        assert status.st_blocks * 512 < 1 << 20
        for offset, length in regions:
            file.seek(offset)
            assert file.read(length) == stored[:length]
            stored = stored[length:]
        file.seek(3 << 30)
        assert file.read(4096) == bytes(4096)


def resummed(block: bytes) -> bytes:
    return block[:148] + b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:]) + block[156:]


@pytest.mark.skipif(shutil.which("unsquashfs") is None, reason="install squashfs-tools")
@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.parametrize("stack", ["files", "attributes", "changes"])
def test_unsquashfs_extracts_the_same_tree(
    tmp_path: Path, stack: str, compression: Compression
) -> None:
    options = OPTIONS[compression]
    layers = [tar_of(*layer) for layer in STACKS[stack]]
    image = build_image(layers, tmp_path, options)
    command = ["unsquashfs", "-no-progress", "-d", str(tmp_path / "out"), str(image.path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert_same(mount_rows(tmp_path / "out"), expected_rows(layers, options))


@pytest.mark.skipif(shutil.which("mkfs.xfs") is None, reason="install xfsprogs")
def test_where_files_can_share_blocks_an_image_takes_hardly_any_space(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(disk)], check=True)
    with mounted(disk, tmp_path / "xfs", kind="xfs", options="rw") as place:
        # The second layer's data are smaller than what can be shared.
        layers = [tar_of(("f", RANDOM.randbytes(30 << 20))), tar_of(("g", b"small"))]
        built = build_image(layers, place, OPTIONS["zstd"])
        assert built.recipe.size > 30 << 20
        os.sync()
        before = shutil.disk_usage(place).free
        again = place / "again"
        weave(
            built.recipe,
            built.store,
            again,
            on_progress=lambda _: None,
            cancelled=threading.Event(),
        )
        os.sync()
        assert before - shutil.disk_usage(place).free < 4 << 20
        verify_image(again, built.recipe)
