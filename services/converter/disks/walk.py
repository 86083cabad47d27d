"""Lists a file system, as `trees.walk` does a directory: in the order of its paths, and bounded.

It is hostile until shown otherwise: names lead nowhere, directories stand in one place only, and
what all files together say to hold is held against the size of what it is in.
"""

from collections.abc import Iterator
from typing import Final

from services.converter.disks.filesystem import MAX_TARGET, FileSystem, Node, damaged
from services.converter.disks.regions import laid_out
from services.converter.packing.errors import LayerTooLargeError
from services.converter.packing.limits import MAX_NAME, MAX_PATH, Limits
from services.converter.trees.errors import TreeInvalidError, TreeTooLargeError
from services.converter.trees.walk import Noted
from shared.image import kinds
from shared.image.merging.budget import MAX_DEPTH
from shared.image.tar.links import Links
from shared.image.tar.row import Row

_DOTS: Final = frozenset((b".", b".."))
# Of all directories that are being listed at one time: they are sorted in memory.
_MOST_NAMES: Final = 4_000_000
# Of paths and targets, on average: longer ones in such numbers nobody has.
_TEXT_PER_ROW: Final = 256
_MOST_PIECES: Final = 1 << 26
_MOST_TIME: Final = (1 << 32) * 1_000_000_000 - 1
_INODES, _DIRECTORIES = 0, 1


class DiskWalk:
    """Lists `fs`."""

    def __init__(
        self, fs: FileSystem, *, packed: int, changed: int, limits: Limits, max_rows: int
    ) -> None:
        """`packed` is the size of the file that it is in, `changed` when that was changed last."""
        self.noted = Noted()
        self._fs = fs
        self._packed = packed
        self._changed = changed
        self._limits = limits
        self._max_rows = max_rows
        self._waiting = self._text = self._pieces = self._listed = 0

    def rows(self) -> Iterator[Row]:
        with Links(on_disk=False) as links:
            top = self._fs.node(self._fs.root)
            if top.facts.kind != kinds.DIRECTORY:
                raise damaged("its root is no directory")
            links.first_name(_DIRECTORIES, top.facts.number, b"")
            yield self._row(b"", top, links)
            levels = [self._below(b"", top)]
            while levels:
                found = next(levels[-1], None)
                if found is None:
                    levels.pop()
                    continue
                path, node = found
                if node.facts.kind == kinds.SOCKET:
                    self.noted.sockets += 1
                    continue
                yield self._row(path, node, links)
                if node.facts.kind == kinds.DIRECTORY:
                    if links.first_name(_DIRECTORIES, node.facts.number, path) is not None:
                        raise damaged(f"directory {node.facts.number} stands in two places")
                    if len(levels) >= MAX_DEPTH:
                        raise TreeInvalidError(
                            f"the disk has directories more than {MAX_DEPTH} deep in each other"
                        )
                    levels.append(self._below(path, node))

    def _below(self, path: bytes, node: Node) -> Iterator[tuple[bytes, Node]]:
        # Directories share no blocks, so all together they are no larger than the disk.
        self._listed += node.facts.size
        if self._listed > self._fs.volume.size:
            raise damaged("its directories are larger than the disk")
        found: dict[bytes, int] = {}
        for name, number in node.names():
            if name in _DOTS:
                continue
            if not name or len(name) > MAX_NAME or b"/" in name or b"\0" in name:
                raise damaged(f"a directory has the impossible name {name[:80]!r}")
            if name in found:
                raise damaged(f"a directory has the name {name[:80]!r} twice")
            found[name] = number
            if self._waiting + len(found) > _MOST_NAMES:
                raise TreeTooLargeError(
                    f"the disk has directories with more than {_MOST_NAMES:,} names, which is not "
                    "allowed"
                )
        self._waiting += len(found)
        before = path + b"/" if path else b""
        for name in sorted(found):
            yield before + name, self._fs.node(found[name])
        self._waiting -= len(found)

    def _row(self, path: bytes, node: Node, links: Links) -> Row:
        facts = node.facts
        if len(path) > MAX_PATH:
            raise TreeInvalidError(
                f"the disk has a path of {len(path):,} bytes, which nobody could open: "
                f"{path[:200]!r}…"
            )
        kind, size, stored, target = facts.kind, 0, 0, b""
        first = None
        if kind != kinds.DIRECTORY and facts.links > 1:
            first = links.first_name(_INODES, facts.number, path)
        if first is not None:
            kind, target = kinds.HARD_LINK, first
        elif kind == kinds.FILE:
            size, stored = facts.size, self._stored(node)
        elif kind == kinds.SYMLINK:
            target = _target(node)
        self._count(path, target, size, stored)
        return Row(
            path,
            kind,
            facts.mode,
            facts.uid,
            facts.gid,
            min(max(facts.mtime, 0), _MOST_TIME),
            self._changed,
            size,
            stored,
            facts.number,
            facts.device,
            target,
        )

    def _stored(self, node: Node) -> int:
        self._limits.check_bytes(node.facts.size)
        found = laid_out(node)
        self._pieces += len(found.pieces)
        if self._pieces > _MOST_PIECES:
            raise TreeTooLargeError(
                f"the disk has files in more than {_MOST_PIECES:,} pieces, which is not allowed"
            )
        return found.stored

    def _count(self, path: bytes, target: bytes, size: int, stored: int) -> None:
        noted = self.noted
        noted.rows += 1
        noted.size += stored
        self._text += len(path) + len(target)
        if noted.rows > self._max_rows:
            raise TreeTooLargeError(
                f"the disk has more than {self._max_rows:,} files, which is not allowed"
            )
        if self._text > (_TEXT_PER_ROW * self._max_rows):
            raise TreeTooLargeError("the disk has more long paths than is allowed")
        if noted.size > self._limits.ratio_from and (
            noted.size > self._limits.max_ratio * self._packed
        ):
            raise LayerTooLargeError(
                f"the disk expands to more than {self._limits.max_ratio} times its size, "
                "which is not allowed: import a tar of it if you trust it"
            )


def _target(node: Node) -> bytes:
    target = node.target()
    if len(target) != node.facts.size or not 0 < len(target) <= MAX_TARGET or b"\0" in target:
        raise damaged(f"inode {node.facts.number} is a broken link")
    return target
