"""From members of a tar to the columns of a pack's index and the blocks of its data region.

Whole blocks of a file follow each other; its last bytes, and files smaller than a block, share
fragment blocks. A block of zeros is a hole.
"""

from collections.abc import Callable

from services.converter.packing.blocks import BlockWriter
from services.converter.packing.errors import LayerInvalidError
from services.converter.packing.fragments import Fragments
from services.converter.packing.limits import Budget, Limits
from services.converter.packing.policy import Policy
from services.converter.packing.tar_reader import Member
from services.converter.packing.tar_sparse import SparseMap
from shared.image import kinds
from shared.image.packs.index import PackIndex, Xattrs
from shared.image.recipe import PackOptions

Read = Callable[[int], bytes]

_OPAQUE = b".wh..wh..opq"
# What aufs left behind, which is neither a file nor a whiteout; nor is anything below it.
_AUFS = b".wh..wh."
# Of these, whiteouts would hide the directory that they are in, or the one above.
_NO_NAMES = frozenset((b"", b".", b".."))
# Of a directory that no entry lies in, so far.
_NO_ROW = -1
# An attribute's two strings, a tuple, and their places.
_XATTR_OVERHEAD = 160


class Packer:
    """Takes members in the tar's order, then `finish` gives the index."""

    def __init__(
        self,
        options: PackOptions,
        index: PackIndex,
        blocks: BlockWriter,
        limits: Limits,
        read: Read,
        *,
        literal: bool = False,
    ) -> None:
        self._literal = literal
        self._block_size = options.block_size
        self._policy = Policy(options)
        self._blocks = blocks
        self._limits = limits
        self._read = read
        self._index = index
        self._fragments = Fragments(blocks, index)
        self._content_bytes = 0
        self._zeros = bytes(options.block_size)
        self._budget = Budget(limits)
        # Every directory that the image will have because of this layer.
        self._directory_rows: dict[bytes, int] = {b"": _NO_ROW}
        self._xattr_rows: dict[Xattrs, int] = {(): 0}

    def add(self, member: Member) -> None:
        parent, _, name = member.path.rpartition(b"/")
        if (
            kinds.WHITEOUT in member.path
            and not self._literal
            and self._is_mark(member.kind, parent, name)
        ):
            return
        if not name and member.kind != kinds.DIRECTORY:
            # The root stays a directory, whatever a layer calls it.
            return
        index = self._index
        self._budget.add_entry(len(name))
        kind, details = self._details(member)
        index.kinds.append(kind)
        index.details.append(details)
        index.names.append(name)
        index.parents.append(self._directory(parent))
        if kind == kinds.DIRECTORY:
            self._note_directory(member.path)
        index.modes.append(self._policy.mode(member))
        index.uids.append(self._policy.owner(member.uid))
        index.gids.append(self._policy.owner(member.gid))
        index.mtimes.append(member.mtime)
        index.xattrs.append(self._xattrs(member) if member.xattrs else 0)

    def finish(self) -> None:
        """Write what is left; now every block's place is known."""
        self._fragments.flush()
        self._blocks.finish()

    def _is_mark(self, kind: int, parent: bytes, name: bytes) -> bool:
        """Note a whiteout or an opaque mark; true as well for what is to be ignored."""
        index = self._index
        if parent == kinds.AUFS_LINKS and kind == kinds.FILE:
            # Hidden in the image, but what hard links of this layer are about.
            return False
        leftover = parent.startswith(_AUFS) or b"/" + _AUFS in parent
        if not leftover and name == _OPAQUE:
            self._budget.add_entry(len(parent))
            index.opaques.append(parent)
        elif not leftover and name.startswith(kinds.WHITEOUT) and not name.startswith(_AUFS):
            hidden = name.removeprefix(kinds.WHITEOUT)
            if hidden in _NO_NAMES:
                message = f"a layer's tar has a whiteout that names no file: {name!r} in {parent!r}"
                raise LayerInvalidError(message)
            self._budget.add_entry(len(parent) + len(name))
            index.whiteout_parents.append(parent)
            index.whiteout_names.append(hidden)
        return leftover or name.startswith(kinds.WHITEOUT)

    def _directory(self, path: bytes) -> int:
        row = self._directory_rows.get(path, _NO_ROW)
        if row == _NO_ROW:
            self._count_implicit(path)
            self._budget.add_text(len(path))
            row = self._directory_rows[path] = len(self._index.directories)
            self._index.directories.append(path)
        return row

    def _note_directory(self, path: bytes) -> None:
        """An entry describes it: it is counted, and its parents are."""
        if path not in self._directory_rows:
            self._directory_rows[path] = _NO_ROW
            self._budget.add_text(len(path))

    def _count_implicit(self, path: bytes) -> None:
        """Parents that no entry describes become directories of the image, too."""
        while path not in self._directory_rows:
            self._directory_rows[path] = _NO_ROW
            self._budget.add_entry(len(path))
            path = path.rpartition(b"/")[0]

    def _xattrs(self, member: Member) -> int:
        xattrs = self._policy.xattrs(member)
        row = self._xattr_rows.setdefault(xattrs, len(self._xattr_rows))
        if row > len(self._index.xattr_sets):
            self._budget.add_text(
                sum(len(key) + len(value) + _XATTR_OVERHEAD for key, value in xattrs)
            )
            self._index.xattr_sets.append(xattrs)
        return row

    def _details(self, member: Member) -> tuple[int, int]:
        """The kind to record, and the row of what only this kind has."""
        kind, index = member.kind, self._index
        if kind == kinds.FILE:
            self._add_file(member)
            return kind, len(index.file_sizes) - 1
        if kind in {kinds.SYMLINK, kinds.HARD_LINK}:
            self._budget.add_text(len(member.target))
            index.targets.append(member.target)
            return kind, len(index.targets) - 1
        if kind in kinds.DEVICES:
            device = self._policy.device(member)
            if device is None:
                return kinds.DROPPED, 0
            index.devices.append(device)
            return kind, len(index.devices) - 1
        return kind, 0

    def _add_file(self, member: Member) -> None:
        index, size = self._index, member.size
        self._content_bytes += size
        self._limits.check_bytes(self._content_bytes)
        file = len(index.file_sizes)
        index.file_sizes.append(size)
        # Only files with whole blocks have a place of their own; the writer finds it.
        index.file_starts.append(0)
        index.file_blocks.append(0)
        suspect = size >= self._block_size and self._blocks.begin_file(file, size)
        if member.sparse is not None:
            tail = self._add_sparse_blocks(member.sparse)
        else:
            for _ in range(size // self._block_size):
                self._add_block(self._read(self._block_size))
            tail = self._read(size % self._block_size)
        if suspect:
            self._blocks.end_file(file)
        fragment, offset = self._fragments.add(file, tail) if tail else (kinds.NO_FRAGMENT, 0)
        index.file_fragments.append(fragment)
        index.file_fragment_offsets.append(offset)

    def _add_block(self, block: bytes) -> None:
        if block[0] == 0 and block == self._zeros:
            self._blocks.add_holes(1)
        else:
            self._blocks.add(block)

    def _add_sparse_blocks(self, sparse: SparseMap) -> bytes:
        """Whole blocks are added; what is left of the file is returned."""
        size = self._block_size
        whole = sparse.size // size * size
        block = bytearray()
        base = 0  # of the block that is being filled, when there is anything in it
        for start, length in sparse.regions:
            offset, end = start, start + length
            while offset < end:
                at = offset // size * size
                if at != base and block:
                    self._finish_sparse_block(block)
                    base += size
                if at != base:
                    self._blocks.add_holes((at - base) // size)
                    base = at
                piece = self._read(min(end, base + size) - offset)
                block += bytes(offset - base - len(block)) + piece
                offset += len(piece)
        if base == whole:
            return bytes(block) + bytes(sparse.size - whole - len(block))
        if block:
            self._finish_sparse_block(block)
            base += size
        if base < whole:
            self._blocks.add_holes((whole - base) // size)
        return bytes(sparse.size - whole)

    def _finish_sparse_block(self, block: bytearray) -> None:
        self._add_block(bytes(block) + bytes(self._block_size - len(block)))
        block.clear()
