"""What a stack of layers must become, told by the standard library's tarfile and plain dicts.

Independent of the code under test on purpose: no reader, no packer, no tables of ours. A tree is
compared as a dict from path to `Row`, whether it comes from here, from an image or from a mount.
"""

import errno
import hashlib
import io
import math
import os
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shared.image import kinds
from shared.image.reader import SquashImage
from shared.image.recipe import PackOptions
from tests.support.xattrs import inode_xattrs


class Row(NamedTuple):
    """All that one path shows; hard links have the first of their names in common."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    detail: object
    xattrs: tuple[tuple[bytes, bytes], ...]
    links: int
    first_name: bytes


Rows = dict[bytes, Row]
# By path: the fields of a row but the last, and what tells one inode from another.
Found = dict[bytes, tuple[tuple[Any, ...], int]]


class DoesNotFitError(Exception):
    """The layers contradict each other: no tree can be made of them."""


class Model:
    """One inode of the expected tree."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.children: dict[bytes, Model] = {}
        self.mode = 0o755
        self.uid = self.gid = self.mtime = 0
        self.detail: object = None
        self.xattrs: tuple[tuple[bytes, bytes], ...] = ()


def expected_rows(layers: Sequence[bytes], options: PackOptions) -> Rows:
    """The tree of these tars, lowest first, with what `options` leave of it."""
    root = Model("d")
    for tar in layers:
        _apply(root, tar, options)
    found: Found = {}
    names: Counter[int] = Counter()
    _collect(root, b"", found, names)
    for path, (fields, identity) in found.items():
        if fields[0] != "d":
            found[path] = ((*fields[:-1], names[identity]), identity)
    return _named(found)


def image_rows(path: Path) -> Rows:
    """The tree in an image, read by our own reader."""
    found: Found = {}
    with SquashImage(path) as image:
        for item in image.walk():
            inode = item.inode
            kind = "?dflbcps"[inode.kind]
            detail: object = None
            if kind == "l":
                detail = inode.target
            elif kind == "f":
                detail = _digest(image.content(inode))
            elif kind in "bc":
                minor = inode.device & 0xFF | (inode.device >> 12) & 0xFFF00
                detail = ((inode.device >> 8) & 0xFFF, minor)
            xattrs = tuple(sorted(inode_xattrs(image, inode).items()))
            found[item.path] = (
                (kind, inode.mode, inode.uid, inode.gid, inode.mtime, detail, xattrs, inode.links),
                inode.number,
            )
            assert kinds.DIRECTORY <= inode.kind <= kinds.SOCKET
    return _named(found)


def mount_rows(root: Path) -> Rows:
    """The tree below a mount point, as the kernel shows it."""
    found: Found = {}
    pending = [root]
    while pending:
        place = pending.pop()
        path = b"" if place == root else os.fsencode(place.relative_to(root))
        status = place.lstat()
        kind = _kind(status.st_mode)
        detail: object = None
        if kind == "d":
            pending += place.iterdir()
        elif kind == "l":
            detail = os.fsencode(os.readlink(place))  # noqa: PTH115 - Path would tidy the target
        elif kind == "f":
            with place.open("rb") as file:
                detail = _digest(iter(lambda: file.read(1 << 20), b""))
        elif kind in "bc":
            detail = (os.major(status.st_rdev), os.minor(status.st_rdev))
        found[path] = (
            (
                kind,
                stat.S_IMODE(status.st_mode),
                status.st_uid,
                status.st_gid,
                int(status.st_mtime),
                detail,
                _mounted_xattrs(place),
                status.st_nlink,
            ),
            status.st_ino,
        )
    return _named(found)


def _apply(root: Model, tar: bytes, options: PackOptions) -> None:
    with tarfile.open(
        fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape"
    ) as archive:
        members = [(_parts(_bytes(member.name)), member) for member in archive.getmembers()]
        members = [item for item in members if not _left_by_aufs(item[0])]
        marks = [(p[:-1], p[-1]) for p, _ in members if p and p[-1].startswith(b".wh.")]
        for parents, name in marks:
            directory = _walk(root, parents, create=False)
            if name == b".wh..wh..opq" and directory is not None:
                directory.children.clear()
        for parents, name in marks:
            directory = _walk(root, parents, create=False)
            if name != b".wh..wh..opq" and directory is not None:
                directory.children.pop(name[4:], None)
        for parts, member in members:
            if not (parts and parts[-1].startswith(b".wh.")):
                _add(root, parts, member, archive, options)


def _left_by_aufs(parts: list[bytes]) -> bool:
    return any(part.startswith(b".wh..wh.") and part != b".wh..wh..opq" for part in parts)


def _add(
    root: Model,
    parts: list[bytes],
    member: tarfile.TarInfo,
    archive: tarfile.TarFile,
    options: PackOptions,
) -> None:
    if not parts:
        _describe(root, member, options)
        return
    parent = _walk(root, parts[:-1], create=True)
    assert parent is not None
    name = parts[-1]
    if member.islnk():
        target = _parts(_bytes(member.linkname))
        directory = _walk(root, target[:-1], create=False)
        linked = directory.children.get(target[-1]) if directory and target else None
        if linked is None or linked.kind == "d":
            raise DoesNotFitError
        parent.children[name] = linked
        return
    if member.isdir():
        old = parent.children.get(name)
        model = old if old is not None and old.kind == "d" else Model("d")
    elif member.issym():
        model = Model("l")
        model.detail = _bytes(member.linkname)
    elif member.isreg():
        content = archive.extractfile(member)
        assert content is not None
        model = Model("f")
        model.detail = _digest(iter(lambda: content.read(1 << 20), b""))
    elif member.isfifo():
        model = Model("p")
    else:
        kept = "c" if member.ischr() else "b"
        model = Model(kept if options.keep_devices else "dropped")
        model.detail = (member.devmajor, member.devminor)
    _describe(model, member, options)
    parent.children[name] = model


def _describe(model: Model, member: tarfile.TarInfo, options: PackOptions) -> None:
    model.mode = 0o777 if model.kind == "l" else member.mode & 0o7777
    if not options.keep_setuid and model.kind != "l":
        model.mode &= 0o1777
    model.uid = member.uid if options.keep_owners else 0
    model.gid = member.gid if options.keep_owners else 0
    model.mtime = min(max(math.floor(member.mtime), 0), 0xFFFFFFFF)
    prefix = "SCHILY.xattr."
    xattrs = {
        _bytes(key[len(prefix) :]): _bytes(value)
        for key, value in member.pax_headers.items()
        if key.startswith(prefix)
    }
    model.xattrs = tuple(
        sorted((key, value) for key, value in xattrs.items() if _kept(key.decode(), options))
    )


def _kept(name: str, options: PackOptions) -> bool:
    if name == "security.capability":
        return name in options.xattr_prefixes
    return name.startswith(options.xattr_prefixes)


def _walk(root: Model, parts: list[bytes], *, create: bool) -> Model | None:
    stack = [root]
    todo = parts[::-1]
    hops = 0
    while todo:
        part = todo.pop()
        if part in {b"", b"."}:
            continue
        if part == b"..":
            stack = stack[:-1] or stack
            continue
        child = stack[-1].children.get(part)
        if child is not None and child.kind == "l":
            hops += 1
            if hops > 255:
                raise DoesNotFitError
            assert isinstance(child.detail, bytes)
            if child.detail.startswith(b"/"):
                stack = [root]
            todo += child.detail.split(b"/")[::-1]
            continue
        if child is None or child.kind != "d":
            if not create:
                return None
            child = stack[-1].children[part] = Model("d")
        stack.append(child)
    return stack[-1]


def _parts(path: bytes) -> list[bytes]:
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in {b"", b"."}:
            parts.append(part)
    return parts


def _collect(model: Model, path: bytes, found: Found, names: Counter[int]) -> None:
    """Depth first; the links of what has several names are known when all have been seen."""
    names[id(model)] += 1
    fields = (model.kind, model.mode, model.uid, model.gid, model.mtime, model.detail, model.xattrs)
    subdirectories = sum(child.kind == "d" for child in model.children.values())
    found[path] = ((*fields, 2 + subdirectories), id(model))
    for name, child in model.children.items():
        if child.kind != "dropped":
            _collect(child, path + b"/" + name if path else name, found, names)


def _named(found: Found) -> Rows:
    """Name each group of hard links after the first of its paths."""
    first: dict[int, bytes] = {}
    for path in sorted(found):
        first.setdefault(found[path][1], path)
    return {path: Row(*(*fields, first[identity])) for path, (fields, identity) in found.items()}


def _kind(mode: int) -> str:
    return {
        stat.S_IFDIR: "d",
        stat.S_IFREG: "f",
        stat.S_IFLNK: "l",
        stat.S_IFBLK: "b",
        stat.S_IFCHR: "c",
        stat.S_IFIFO: "p",
        stat.S_IFSOCK: "s",
    }[stat.S_IFMT(mode)]


def _mounted_xattrs(place: Path) -> tuple[tuple[bytes, bytes], ...]:
    try:
        names = os.listxattr(place, follow_symlinks=False)
    except OSError as exc:
        if exc.errno == errno.EOPNOTSUPP:  # an image without any xattr has no table of them
            return ()
        raise
    return tuple(
        sorted((os.fsencode(n), os.getxattr(place, n, follow_symlinks=False)) for n in names)
    )


def _digest(pieces: Iterator[bytes]) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
