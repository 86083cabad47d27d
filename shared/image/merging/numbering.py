"""The finished tree made ready for its tables: names in order, links counted, inodes numbered."""

from collections.abc import Iterator

from shared.image import kinds
from shared.image.merging.budget import Budget
from shared.image.merging.tree import ROW_BITS, ROW_MASK, Children, Directory, Tree


def number_nodes(tree: Tree, budget: Budget) -> int:
    """Sort names, count links, number inodes depth first; returns how many there are.

    A directory's `links` is the number of its subdirectories plus two. On the way, layers are
    told which of their entries and files the tree shows.
    """
    layers = tree.layers
    tree.root.number = number = 1
    pending = [tree.root]
    while pending:
        budget.check()
        directory = pending.pop()
        children = directory.children
        subdirectories = []
        present: Children = {}
        for name in sorted(children):
            node = children[name]
            if isinstance(node, Directory):
                number += 1
                node.number = number
                subdirectories.append(node)
                present[name] = node
                continue
            layer, row = layers[node >> ROW_BITS], node & ROW_MASK
            kind = layer.index.kinds[row]
            if kind == kinds.DROPPED:
                continue
            if not layer.links[row]:
                number += 1
                layer.numbers[row] = number
                if kind == kinds.FILE:
                    layer.live[layer.index.details[row]] = 1
            layer.links[row] += 1
            present[name] = node
        directory.children = present
        directory.links = 2 + len(subdirectories)
        subdirectories.reverse()
        pending += subdirectories
    return number


def directories_bottom_up(root: Directory) -> Iterator[tuple[Directory, int]]:
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


def _subdirectories(directory: Directory) -> Iterator[Directory]:
    if directory.links == 2:
        return iter(())
    return (node for node in directory.children.values() if isinstance(node, Directory))
