"""Layers become one tree: overlay semantics, in memory, on nodes that only point into the packs.

Of each layer first the opaque marks apply, then its whiteouts (both see lower layers only,
wherever they stand in the tar), then its entries in the tar's order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.image import kinds
from shared.image.budget import CHECK_EVERY, MAX_DEPTH, Budget
from shared.image.errors import ImageInvalidError, ImageTooLargeError
from shared.image.pack_index import PackIndex

# As the kernel allows in one path walk, with room to spare.
MAX_SYMLINK_HOPS: Final = 255


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A pack's index and where its data region and its fragments are in the image."""

    index: PackIndex
    offset: int
    first_fragment: int


class Node:
    """One inode. It has several names where entries are hard links to each other."""

    __slots__ = ("children", "kind", "layer", "links", "number", "reference", "row")

    def __init__(self, kind: int, layer: Layer | None, row: int) -> None:
        self.kind = kind
        # A directory that no entry describes has no layer.
        self.layer = layer
        self.row = row
        self.children: dict[bytes, Node] | None = {} if kind == kinds.DIRECTORY else None
        self.links = 0
        self.number = 0
        self.reference = -1

    @property
    def target(self) -> bytes:
        assert self.layer is not None
        return self.layer.index.target(self.row)


Children = dict[bytes, Node]


class Tree:
    """The image's root directory, growing layer by layer, within the budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.root = Node(kinds.DIRECTORY, None, 0)

    def apply(self, layer: Layer) -> None:
        index = layer.index
        # At once for all entries, before there is any work: most of them become nodes.
        self._budget.add_nodes(len(index.names))
        for path in self._budget.watched(index.opaques):
            directory = self.find_directory(path)
            if directory is not None:
                directory.clear()
        whiteouts = zip(index.whiteout_parents, index.whiteout_names, strict=True)
        for parent, name in self._budget.watched(whiteouts):
            directory = self.find_directory(parent)
            if directory is not None:
                directory.pop(name, None)
        self._add_entries(layer)

    def find_directory(self, path: bytes) -> Children | None:
        """The directory at `path`, if there is one; symlinks are followed inside the root."""
        return self._walk(path, create=False)

    def make_directory(self, path: bytes) -> Children:
        """The directory at `path`; what is missing or in the way is made a directory."""
        found = self._walk(path, create=True)
        assert found is not None
        return found

    def _add_entries(self, layer: Layer) -> None:
        index = layer.index
        directories = index.directories
        # Where rows of `directories` are, until a directory or a symlink is replaced: however
        # often that is, an entry costs one walk at most.
        known: dict[int, Children] = {}
        rows = zip(index.kinds, index.parents, index.names, strict=True)
        for row, (kind, parent, name) in enumerate(rows):
            if not row % CHECK_EVERY:
                self._budget.check()
            children = known.get(parent)
            if children is None:
                children = known[parent] = self.make_directory(directories[parent])
            old = children.get(name)
            if kind == kinds.DIRECTORY and (old is None or old.children is not None or not name):
                # Over a directory of a lower layer only the attributes change.
                node = self.root if not name else old
                if node is None:
                    node = children[name] = Node(kind, layer, row)
                node.layer = layer
                node.row = row
                continue
            new = self._link(layer, row) if kind == kinds.HARD_LINK else Node(kind, layer, row)
            children[name] = new
            if old is not None and (old.children is not None or old.kind == kinds.SYMLINK):
                known.clear()

    def _link(self, layer: Layer, row: int) -> Node:
        target = layer.index.target(row)
        parent, _, name = target.rpartition(b"/")
        directory = self.find_directory(parent)
        node = None if directory is None else directory.get(name)
        if node is None or node.children is not None:
            message = f"a layer has a hard link to {target!r}, which is no file in the image"
            raise ImageInvalidError(message)
        return node

    def _walk(self, path: bytes, *, create: bool) -> Children | None:
        assert self.root.children is not None
        stack: list[Children] = [self.root.children]
        todo = path.split(b"/")[::-1]
        hops = 0
        while todo:
            name = todo.pop()
            if name in {b"", b"."}:
                continue
            if name == b"..":
                if len(stack) > 1:
                    stack.pop()
                continue
            node = stack[-1].get(name)
            if node is not None and node.kind == kinds.SYMLINK:
                hops += 1
                if hops > MAX_SYMLINK_HOPS:
                    raise ImageInvalidError(f"too many symlinks lead to the directory {path!r}")
                steps = node.target.split(b"/")
                self._budget.add_symlink_steps(len(steps))
                if not steps[0]:
                    del stack[1:]
                todo += reversed(steps)
                continue
            if node is None or node.children is None:
                if not create:
                    return None
                self._budget.add_nodes(1)
                node = stack[-1][name] = Node(kinds.DIRECTORY, None, 0)
            assert node.children is not None
            stack.append(node.children)
            # What is in the directory is one deeper, and the root is in the stack.
            if len(stack) > MAX_DEPTH:
                message = f"the image has directories more than {MAX_DEPTH} deep in each other"
                raise ImageTooLargeError(message)
        return stack[-1]


def number_nodes(root: Node, budget: Budget) -> int:
    """Sort names, count links, number inodes depth first; returns how many there are.

    A directory's `links` is the number of its subdirectories plus two.
    """
    root.number = number = 1
    pending = [root]
    while pending:
        budget.check()
        directory = pending.pop()
        assert directory.children is not None
        present = {
            name: node
            for name, node in sorted(directory.children.items())
            if node.kind != kinds.DROPPED
        }
        directory.children = present
        directory.links = 2
        subdirectories = []
        for node in present.values():
            if node.children is not None:
                directory.links += 1
                subdirectories.append(node)
            else:
                node.links += 1
            if not node.number:
                number += 1
                node.number = number
        pending += reversed(subdirectories)
    return number


def directories_bottom_up(root: Node) -> Iterator[tuple[Node, int]]:
    """Every directory after its subdirectories, each with the inode number of its parent."""
    stack = [(root, 0, _subdirectories(root))]
    while stack:
        directory, parent, below = stack[-1]
        following = next(below, None)
        if following is not None:
            stack.append((following, directory.number, _subdirectories(following)))
        else:
            stack.pop()
            yield directory, parent


def _subdirectories(directory: Node) -> Iterator[Node]:
    assert directory.children is not None
    if directory.links == 2:
        return iter(())
    return (node for node in directory.children.values() if node.children is not None)
