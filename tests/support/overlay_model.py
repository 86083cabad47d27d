"""What a stack of layers means, told by the image specification, tarfile and a plain dict.

Independent of the code under test on purpose: no reader, no packer, no tree of ours. A tree is a
dict from paths, which are tuples of names, to inodes; an inode under two paths is a hard link.
"""

import hashlib
import io
import math
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.image.recipe import PackOptions
from tests.support.trees import Found, Rows, named

MAX_LINKS = 255

Xattrs = tuple[tuple[bytes, bytes], ...]
Path = tuple[bytes, ...]


class DoesNotFitError(Exception):
    """The layers contradict each other: no tree can be made of them."""


@dataclass(eq=False)
class Inode:
    """Whatever has a name; `detail` is what only its kind has, as in a `Row`."""

    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    detail: object = None
    xattrs: Xattrs = ()


Tree = dict[Path, Inode]


def expected_rows(layers: Sequence[bytes], options: PackOptions) -> Rows:
    """The tree of these tars, lowest first, with what `options` leave of it."""
    tree: Tree = {(): Inode("d")}
    for tar in layers:
        apply(tree, tar, options)
    return rows_of({b"/".join(path): node for path, node in tree.items()})


def rows_of(tree: Mapping[bytes, Inode]) -> Rows:
    """As a mount would show it."""
    present = {path: node for path, node in tree.items() if node.kind != "dropped"}
    names = Counter(id(node) for node in present.values())
    subdirectories = Counter(
        path.rpartition(b"/")[0] for path, node in present.items() if path and node.kind == "d"
    )
    found: Found = {}
    for path, node in present.items():
        links = 2 + subdirectories[path] if node.kind == "d" else names[id(node)]
        fields = (node.kind, node.mode, node.uid, node.gid, node.mtime, node.detail, node.xattrs)
        found[path] = ((*fields, links), id(node))
    return named(found)


def content(data: bytes) -> tuple[int, str]:
    """A file's detail."""
    return len(data), hashlib.sha256(data).hexdigest()


def apply(tree: Tree, tar: bytes, options: PackOptions) -> None:
    with tarfile.open(
        fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape"
    ) as archive:
        members = [(clean(encoded(member.name)), member) for member in archive.getmembers()]
        members = [item for item in members if not _left_by_aufs(item[0])]
        hidden = _apply_marks(tree, members)
        for path, member in members:
            if not _is_mark(path):
                _add(tree, path, member, archive, options, hidden)


# By a directory's inode and the name in it. The inode itself: an id is soon another one's.
Hidden = dict[tuple[Inode, bytes], Inode]
Members = list[tuple[Path, tarfile.TarInfo]]


def _apply_marks(tree: Tree, members: Members) -> Hidden:
    """Marks hide what lower layers have, wherever they stand; directories go before their files."""
    made = {path for path, member in members if member.isdir()}
    hidden: Hidden = {}
    for path in sorted((path for path, _ in members if _is_mark(path)), key=len):
        parent = follow(tree, path[:-1], made=made)
        if parent is None:
            continue
        opaque = path[-1] == b".wh..wh..opq"
        for child in [p for p in tree if p and p[:-1] == parent]:
            if opaque or child[-1] == path[-1].removeprefix(b".wh."):
                hidden[tree[parent], child[-1]] = tree[child]
                remove(tree, child)
    return hidden


def _add(
    tree: Tree,
    path: Path,
    member: tarfile.TarInfo,
    archive: tarfile.TarFile,
    options: PackOptions,
    hidden: Hidden,
) -> None:
    if not path:
        if member.isdir():
            _describe(tree[()], member, options)
            if not options.keep_owners:
                tree[()].mode |= 0o555
        return
    parent = follow(tree, path[:-1], create=True)
    assert parent is not None
    place = (*parent, path[-1])
    if member.islnk():
        node = _linked(tree, clean(encoded(member.linkname)), hidden)
    elif member.isdir():
        old = tree.get(place)
        node = old if old is not None and old.kind == "d" else Inode("d")
    else:
        node = _new(member, archive, options)
    if tree.get(place) is not node:
        remove(tree, place)
        tree[place] = node
    if not member.islnk():
        _describe(node, member, options)


def _linked(tree: Tree, target: Path, hidden: Hidden) -> Inode:
    parent = follow(tree, target[:-1]) if target else None
    if parent is None:
        raise DoesNotFitError
    node = tree.get((*parent, target[-1])) or hidden.get((tree[parent], target[-1]))
    if node is None or node.kind == "d":
        raise DoesNotFitError
    return node


def _new(member: tarfile.TarInfo, archive: tarfile.TarFile, options: PackOptions) -> Inode:
    if member.issym():
        return Inode("l", detail=encoded(member.linkname))
    if member.isreg():
        file = archive.extractfile(member)
        assert file is not None
        return Inode("f", detail=content(file.read()))
    if member.isfifo():
        return Inode("p")
    kind = "c" if member.ischr() else "b"
    detail = (member.devmajor, member.devminor)
    return Inode(kind if options.keep_devices else "dropped", detail=detail)


def _describe(node: Inode, member: tarfile.TarInfo, options: PackOptions) -> None:
    node.mode = 0o777 if node.kind == "l" else member.mode & 0o7777
    if not options.keep_setuid and node.kind != "l":
        node.mode &= 0o1777
    node.uid = member.uid if options.keep_owners else 0
    node.gid = member.gid if options.keep_owners else 0
    node.mtime = min(max(math.floor(member.mtime), 0), 0xFFFFFFFF)
    prefix = "SCHILY.xattr."
    xattrs = {
        key.removeprefix(prefix): encoded(value)
        for key, value in member.pax_headers.items()
        if key.startswith(prefix) and _kept(key.removeprefix(prefix), node.kind, options)
    }
    node.xattrs = tuple(sorted((encoded(key), value) for key, value in xattrs.items()))


def _kept(name: str, kind: str, options: PackOptions) -> bool:
    if name.startswith("user.") and kind not in {"f", "d"}:
        return False
    if name == "security.capability":
        return name in options.xattrs
    prefixes = tuple(item for item in options.xattrs if item.endswith("."))
    return name in options.xattrs or name.startswith(prefixes)


def follow(tree: Tree, path: Path, *, create: bool = False, made: Any = frozenset()) -> Path | None:
    """Where the directory `path` really is; symlinks stay inside the root.

    A symlink in whose place the layer has `made` a directory leads nowhere.
    """
    links = 0

    def step(at: Path | None, name: bytes) -> Path | None:
        nonlocal links
        if at is None or name in {b"", b"."}:
            return at
        if name == b"..":
            return at[:-1]
        place = (*at, name)
        node = tree.get(place)
        if node is not None and node.kind == "l":
            links += 1
            if links > MAX_LINKS:
                raise DoesNotFitError
            assert isinstance(node.detail, bytes)
            start: Path | None = () if node.detail.startswith(b"/") else at
            for piece in node.detail.split(b"/"):
                start = step(start, piece)
            return start
        if node is None or node.kind != "d":
            if not create:
                return None
            remove(tree, place)
            tree[place] = Inode("d")
        return place

    at: Path | None = ()
    for number, name in enumerate(path, 1):
        if at is not None and path[:number] in made:
            old = tree.get((*at, name))
            if old is not None and old.kind == "l":
                return None
        at = step(at, name)
    return at


def remove(tree: Tree, path: Path) -> None:
    for below in [p for p in tree if p[: len(path)] == path]:
        del tree[below]


def clean(path: bytes) -> Path:
    parts: Path = ()
    for part in path.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in {b"", b"."}:
            parts = (*parts, part)
    return parts


def _is_mark(path: Path) -> bool:
    return bool(path) and path[-1].startswith(b".wh.")


def _left_by_aufs(path: Path) -> bool:
    return any(part.startswith(b".wh..wh.") and part != b".wh..wh..opq" for part in path)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
