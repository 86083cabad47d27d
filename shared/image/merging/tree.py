"""Layers become one tree: overlay semantics, in memory, on leaves that only point into the packs.

Of each layer first the opaque marks and whiteouts apply (they see lower layers only, wherever they
stand in the tar), then its entries in the tar's order.
"""

from collections.abc import Set as AbstractSet
from typing import Final

from shared.image import kinds
from shared.image.errors import ImageInvalidError, ImageTooLargeError
from shared.image.merging.budget import CHECK_EVERY, MAX_DEPTH, Budget
from shared.image.merging.live import Layer
from shared.image.packs.index import PackIndex

# As the kernel allows in one path walk, with room to spare.
MAX_SYMLINK_HOPS: Final = 255


class Directory:
    """One directory; what no entry describes has no layer."""

    __slots__ = ("children", "layer", "links", "number", "row")

    def __init__(self) -> None:
        self.children: Children = {}
        self.layer: Layer | None = None
        self.row = 0
        self.links = 0
        self.number = 0


# An inode that is no directory: the number of its layer and the row of its entry, as one integer.
# A million objects would take several times the memory, and a long look of the garbage collector,
# during which the whole process stands still. Names that are hard links have the same leaf.
Leaf = int
ROW_BITS: Final = 32
ROW_MASK: Final = (1 << ROW_BITS) - 1
Children = dict[bytes, Directory | Leaf]
_NOTHING: Final[Children] = {}


class Tree:
    """The image's root directory, growing layer by layer, within the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.root = Directory()
        # Each as often as it is applied: what it brings the second time are other inodes.
        self.layers: list[Layer] = []
        # What the layer at hand hides, by the id of the directory that had it, which is held.
        self._hidden: dict[int, tuple[Children, Children]] = {}

    def apply(self, layer: Layer) -> None:
        # At once for all entries, before there is any work: most of them become nodes.
        self._budget.add_nodes(len(layer.index.names))
        self.layers.append(layer)
        self._apply_marks(layer.index)
        self._add_entries(layer)
        self._hidden.clear()
        self.root.children.pop(kinds.AUFS_LINKS, None)

    def find_directory(self, path: bytes) -> Children | None:
        """The directory at `path`, if there is one; symlinks are followed inside the root."""
        return self._walk(path, create=False)

    def make_directory(self, path: bytes) -> Children:
        """The directory at `path`; what is missing or in the way is made a directory."""
        found = self._walk(path, create=True)
        assert found is not None
        return found

    def _apply_marks(self, index: PackIndex) -> None:
        whiteouts = zip(index.whiteout_parents, index.whiteout_names, strict=True)
        marks: list[tuple[bytes, bytes | None]] = [*whiteouts, *((p, None) for p in index.opaques)]
        if not marks:
            return
        # What is hidden with its directory, or with a symlink to it, needs no mark of its own.
        marks.sort(key=lambda mark: mark[0].count(b"/") + bool(mark[0]))
        made = _described_directories(index)
        for path, name in self._budget.watched(marks):
            directory = self._walk(path, create=False, made=made)
            if directory is None:
                continue
            _, hidden = self._hidden.setdefault(id(directory), (directory, {}))
            if name is None:
                hidden |= directory
                directory.clear()
            elif name in directory:
                hidden[name] = directory.pop(name)

    def _add_entries(self, layer: Layer) -> None:
        index = layer.index
        directories = index.directories
        # Where rows of `directories` are, until a directory or a symlink is replaced: however
        # often that is, an entry costs one walk at most.
        known: dict[int, Children] = {}
        first_leaf = (len(self.layers) - 1) << ROW_BITS
        rows = zip(index.kinds, index.parents, index.names, strict=True)
        for row, (kind, parent, name) in enumerate(rows):
            if not row % CHECK_EVERY:
                self._budget.check()
            children = known.get(parent)
            if children is None:
                children = known[parent] = self.make_directory(directories[parent])
            old = children.get(name)
            if kind == kinds.DIRECTORY:
                # Over a directory of a lower layer only the attributes change.
                directory = self.root if not name else old
                if not isinstance(directory, Directory):
                    directory = children[name] = Directory()
                    if old is not None and self._leads_on(old):
                        known.clear()
                directory.layer = layer
                directory.row = row
                continue
            is_link = kind == kinds.HARD_LINK
            children[name] = self._link(layer, row) if is_link else first_leaf + row
            if old is not None and self._leads_on(old):
                known.clear()

    def _leads_on(self, node: Directory | Leaf) -> bool:
        """Whether paths may go through it."""
        return isinstance(node, Directory) or self._target(node) is not None

    def _target(self, leaf: Leaf) -> bytes | None:
        """Where it leads to, if it is a symlink."""
        index, row = self.layers[leaf >> ROW_BITS].index, leaf & ROW_MASK
        return index.target(row) if index.kinds[row] == kinds.SYMLINK else None

    def _link(self, layer: Layer, row: int) -> Leaf:
        target = layer.index.target(row)
        parent, _, name = target.rpartition(b"/")
        directory = self.find_directory(parent)
        node = None
        if directory is not None:
            # A link may come before the mark that hides its target, and keeps the file then.
            _, hidden = self._hidden.get(id(directory), (_NOTHING, _NOTHING))
            node = directory.get(name, hidden.get(name))
        if node is None or isinstance(node, Directory):
            message = f"a layer has a hard link to {target!r}, which is no file in the image"
            raise ImageInvalidError(message)
        return node

    def _walk(
        self, path: bytes, *, create: bool, made: AbstractSet[bytes] = frozenset()
    ) -> Children | None:
        """The directory; there is none behind a symlink in whose place a layer has `made` one."""
        stack: list[Children] = [self.root.children]
        parts = path.split(b"/")
        todo = parts[::-1]
        self._budget.add_steps(len(todo))
        own = len(todo)  # All that is in `todo` above so many is from symlinks.
        hops = 0
        while todo:
            name = todo.pop()
            is_own = len(todo) < own
            own = min(own, len(todo))
            if name in {b"", b"."}:
                continue
            if name == b"..":
                if len(stack) > 1:
                    stack.pop()
                continue
            node = stack[-1].get(name)
            link = self._target(node) if isinstance(node, Leaf) else None
            if link is not None:
                if made and is_own and b"/".join(parts[: len(parts) - own]) in made:
                    return None
                hops += 1
                if hops > MAX_SYMLINK_HOPS:
                    raise ImageInvalidError(f"too many symlinks lead to the directory {path!r}")
                steps = link.split(b"/")
                self._budget.add_steps(len(steps))
                if not steps[0]:
                    del stack[1:]
                todo += reversed(steps)
                continue
            if not isinstance(node, Directory):
                if not create:
                    return None
                self._budget.add_nodes(1)
                node = stack[-1][name] = Directory()
            stack.append(node.children)
            # What is in the directory is one deeper, and the root is in the stack.
            if len(stack) > MAX_DEPTH:
                message = f"the image has directories more than {MAX_DEPTH} deep in each other"
                raise ImageTooLargeError(message)
        return stack[-1]


def _described_directories(index: PackIndex) -> frozenset[bytes]:
    rows = zip(index.kinds, index.parents, index.names, strict=True)
    pairs = (
        (index.directories[parent], name) for kind, parent, name in rows if kind == kinds.DIRECTORY
    )
    return frozenset(parent + b"/" + name if parent else name for parent, name in pairs)
