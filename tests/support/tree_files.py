"""A tree with every kind of inode, and with whatever makes a name or a file special."""

import os
import random
import socket
from pathlib import Path

from tests.support.squashfs import is_root
from tests.support.trees import Rows

NOT_UTF8 = os.fsdecode(b"not\xffutf-8")


def rich_tree(root: Path) -> Path:
    """Devices and foreign owners only for root."""
    dice = random.Random(11)
    for name in ("usr/bin", "etc", "empty", "deep/er/still", "many", "home/a b"):
        (root / name).mkdir(parents=True)
    noise = dice.randbytes(3_000_000)
    for size in (0, 1, 511, 512, 513, 4096, 131_072, 131_073, 1 << 20, (1 << 20) + 1, 3_000_000):
        (root / f"usr/noise{size}").write_bytes(noise[:size])
    (root / "usr/bin/program").write_bytes(Path("/bin/ls").read_bytes())
    (root / "usr/bin/program").chmod(0o755)
    for number in range(1200):
        (root / f"many/{number:05}").write_bytes(b"%d" % number)
    with (root / "holes").open("wb") as file:
        file.write(b"x")
        file.seek(5_000_000)
        file.write(b"y")
        file.truncate(9_000_000)
    with (root / "hole").open("wb") as file:
        file.truncate(4_000_000)
    os.link(root / "usr/noise513", root / "etc/hard")
    os.link(root / "usr/noise513", root / "deep/er/still/hard")
    (root / "etc/link").symlink_to("../usr/noise1")
    (root / "etc/long").symlink_to("x" * 300)
    (root / "etc/dangling").symlink_to("/nowhere")
    (root / "loop").symlink_to(".")
    (root / NOT_UTF8).write_bytes(b"name")
    (root / "new\nline").write_bytes(b"name")
    (root / ("n" * 255)).write_bytes(b"long name")
    long = root / "/".join(["d" * 200] * 4)
    long.mkdir(parents=True)
    (long / "file").write_bytes(b"long path")
    # What layers mean by these names is not meant here.
    (root / "etc/.wh.hidden").write_bytes(b"a file like others")
    (root / "etc/.wh..wh..opq").write_bytes(b"")
    (root / ".wh.usr").write_bytes(b"")
    os.mkfifo(root / "pipe")
    os.setxattr(root / "usr/noise1", "user.a", b"b")
    os.setxattr(root / "usr", "user.empty", b"")
    os.setxattr(root, "user.root", b"of the root")
    (root / "usr/bin/program").chmod(0o4755)
    if is_root():
        os.mknod(root / "null", 0o20666, os.makedev(1, 3))
        os.mknod(root / "large", 0o60600, os.makedev(259, 300))
        os.chown(root / "home/a b", 3_000_000, 70_000)
        os.chown(root / "pipe", 1000, 7)
        os.setxattr(root / "usr/noise512", "trusted.t", b"u")
        capability = b"\1\0\0\2\0 " + bytes(14)
        os.setxattr(root / "usr/noise4096", "security.capability", capability)
    os.utime(root / "usr/noise0", (0, 0))
    os.utime(root / "usr/noise1", (5e9, 5e9))
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    os.utime(root / "tmp", (1_600_000_000, 1_600_000_000))
    return root


def add_socket(path: Path) -> None:
    """Which no image has."""
    above = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{above}/{path.name}")
    os.close(above)


def as_squashfs_has_it(rows: Rows) -> Rows:
    """Times that its 32 bits have no room for are its last."""
    return {path: row._replace(mtime=min(row.mtime, 0xFFFFFFFF)) for path, row in rows.items()}
