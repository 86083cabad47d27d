"""Stacks of layers that other tools get wrong, each with the tree that it means, written by hand.

Where the image specification is silent, the tree is what containerd makes of the same layers.
"""

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.overlay_model import Inode, content
from tests.support.packing import Part, directory, hard_link, member, symlink, tar_of

TIME = 1_600_000_000
OLD = b"old"
NEW = b"new content"


@dataclass(frozen=True)
class Case:
    """Tars, lowest first, and what they must become; the root has its defaults unless told."""

    layers: tuple[bytes, ...]
    tree: Mapping[bytes, Inode]


def case(*layers: list[Part], **tree: Inode) -> Case:
    """The names of `tree` are paths with "_" for "/"."""
    named = {name.replace("_", "/").encode(): node for name, node in tree.items()}
    return Case(tuple(tar_of(*layer) for layer in layers), named)


def f(data: bytes = NEW, mode: int = 0o644, mtime: int = TIME, uid: int = 0) -> Inode:
    return Inode("f", mode, uid, 0, mtime, content(data))


def d(mode: int = 0o755, mtime: int = TIME) -> Inode:
    return Inode("d", mode, mtime=mtime)


def implied() -> Inode:
    return Inode("d")


def s(target: bytes) -> Inode:
    return Inode("l", 0o777, mtime=TIME, detail=target)


def gone(path: str) -> Part:
    parent, slash, name = path.rpartition("/")
    return f"{parent}{slash}.wh.{name}", b""


def opaque(path: str) -> Part:
    return f"{path}/.wh..wh..opq", b""


ONE = f()
TWO = f()
BOTH = f(OLD)
LINKED = s(b"x")
LIB: list[Part] = [directory("usr"), directory("usr/lib"), ("usr/lib/a", OLD)]
TREE: list[Part] = [directory("d", mode=0o700), ("d/a", OLD), directory("d/e"), ("d/e/b", OLD)]

CASES: dict[str, Case] = {
    "no layer entry at all": case([]),
    "whiteout before the new file": case([("a", OLD)], [gone("a"), ("a", NEW)], a=f()),
    "whiteout behind the new file": case([("a", OLD)], [("a", NEW), gone("a")], a=f()),
    "whiteout twice": case([("a", OLD), ("b", OLD)], [gone("a"), gone("a")], b=f(OLD)),
    "whiteout of nothing": case([("a", OLD)], [gone("b"), gone("x/y"), gone("a/z")], a=f(OLD)),
    "whiteout of a file of its own layer": case([("a", NEW), gone("a")], a=f()),
    "whiteout that is a directory": case([("a", OLD)], [directory(".wh.a")]),
    "whiteout that is a hard link": case([("a", OLD)], [hard_link(".wh.a", "nowhere")]),
    "whiteout that has data": case([("a", OLD)], [(".wh.a", b"surplus"), ("b", NEW)], b=f()),
    "whiteout of a directory": case([*TREE], [gone("d"), ("x", NEW)], x=f()),
    "whiteout of a directory that comes again": case(
        TREE, [gone("d"), directory("d"), ("d/n", NEW)], d=d(), d_n=f()
    ),
    "whiteout of a directory that only paths name again": case(
        TREE, [("d/n", NEW), gone("d")], d=implied(), d_n=f()
    ),
    "whiteouts of a directory and below it": case(TREE, [gone("d/e/b"), gone("d/e"), gone("d")]),
    "whiteout below a directory that becomes a file": case(TREE, [gone("d/a"), ("d", NEW)], d=f()),
    "whiteout of the longest name": case([("n" * 255, OLD)], [gone("n" * 255)]),
    "whiteout of a name of dots": case(
        [("...", OLD), ("..a", OLD)], [gone("...")], **{"..a": f(OLD)}
    ),
    "whiteout of a symlink leaves its target": case(
        [*LIB, symlink("lib", "usr/lib")], [gone("lib")], usr=d(), usr_lib=d(), usr_lib_a=f(OLD)
    ),
    "whiteout through a symlink": case(
        [*LIB, symlink("lib", "usr/lib")], [gone("lib/a")], usr=d(), usr_lib=d(), lib=s(b"usr/lib")
    ),
    "whiteout through an absolute symlink out of the root": case(
        [*LIB, symlink("lib", "/../../usr/./lib/")],
        [gone("lib/a")],
        usr=d(),
        usr_lib=d(),
        lib=s(b"/../../usr/./lib/"),
    ),
    "whiteout and back in the next layer": case(
        [("a", OLD)], [gone("a")], [("b", NEW)], [("a", NEW)], a=f(), b=f()
    ),
    "opaque first": case(TREE, [directory("d"), opaque("d"), ("d/n", NEW)], d=d(), d_n=f()),
    "opaque last": case(TREE, [directory("d"), ("d/n", NEW), opaque("d")], d=d(), d_n=f()),
    "opaque without its directory": case(TREE, [opaque("d")], d=d(0o700)),
    "opaque over what only paths name again": case(
        TREE,
        [("d/e/n", NEW), opaque("d")],
        d=d(0o700),
        d_e=implied(),
        d_e_n=f(),
    ),
    "opaque below an opaque directory": case(
        TREE, [opaque("d/e"), opaque("d"), ("d/e/n", NEW)], d=d(0o700), d_e=implied(), d_e_n=f()
    ),
    "opaque directory that is missing": case([("a", OLD)], [opaque("x")], a=f(OLD)),
    "opaque directory that is a file": case([("a", OLD)], [opaque("a")], a=f(OLD)),
    "opaque root": case(TREE, [("./.wh..wh..opq", b""), ("n", NEW)], n=f()),
    "opaque and a whiteout in it": case(
        TREE, [opaque("d"), gone("d/a"), ("d/a", NEW)], d=d(0o700), d_a=f()
    ),
    "opaque hides nothing of its own layer": case(
        [("d/a", NEW), opaque("d")], d=implied(), d_a=f()
    ),
    "opaque directory in place of a symlink to a directory": case(
        [*LIB, symlink("lib", "usr/lib")],
        [directory("lib"), opaque("lib"), ("lib/n", NEW)],
        usr=d(),
        usr_lib=d(),
        usr_lib_a=f(OLD),
        lib=d(),
        lib_n=f(),
    ),
    "opaque directory in place of a symlink that is whited out": case(
        [*LIB, symlink("lib", "usr/lib")],
        [opaque("lib"), ("lib/n", NEW), gone("lib")],
        usr=d(),
        usr_lib=d(),
        usr_lib_a=f(OLD),
        lib=implied(),
        lib_n=f(),
    ),
    "whiteout in a directory in place of a symlink to one": case(
        [*LIB, symlink("lib", "usr/lib")],
        [directory("lib"), gone("lib/a")],
        usr=d(),
        usr_lib=d(),
        usr_lib_a=f(OLD),
        lib=d(),
    ),
    "opaque through a symlink": case(
        [*LIB, symlink("lib", "usr/lib")], [opaque("lib")], usr=d(), usr_lib=d(), lib=s(b"usr/lib")
    ),
    "type changes": case(
        [*TREE, ("f", OLD), symlink("s", "d"), member("p", tarfile.FIFOTYPE)],
        [("d", NEW), directory("f"), directory("s"), symlink("p", "d")],
        d=f(),
        f=d(),
        s=d(),
        p=s(b"d"),
    ),
    "type changes and back": case(
        TREE, [("d", NEW)], [directory("d"), ("d/a", NEW)], d=d(), d_a=f()
    ),
    "type changes within one layer": case(
        [("d", OLD), directory("d"), ("d/a", OLD), symlink("d", "x"), directory("d"), ("d/b", NEW)],
        d=d(),
        d_b=f(),
    ),
    "directory over a directory": case(
        TREE,
        [directory("d", mode=0o1777, mtime=7, uid=5)],
        d=Inode("d", 0o1777, 5, 0, 7),
        d_a=f(OLD),
        d_e=d(),
        d_e_b=f(OLD),
    ),
    "directory twice": case(
        [directory("d", mode=0o700), ("d/a", NEW), directory("d", mode=0o711)], d=d(0o711), d_a=f()
    ),
    "a directory's attributes go when it is described anew": case(
        [directory("d", pax_headers={"SCHILY.xattr.trusted.x": "1"})], [directory("d")], d=d()
    ),
    "parents that no entry describes": case(
        [("x/y/z", NEW)], x=implied(), x_y=implied(), x_y_z=f()
    ),
    "parents described afterwards": case(
        [("x/y", NEW), directory("x", mode=0o700)], x=d(0o700), x_y=f()
    ),
    "parents that are files": case(
        [("a", OLD)], [("a/b/c", NEW)], a=implied(), a_b=implied(), a_b_c=f()
    ),
    "parents that are files of the same layer": case(
        [("a", OLD), ("a/b", NEW)], a=implied(), a_b=f()
    ),
    "parent is a symlink to a parent that is missing": case(
        [symlink("s", "x/y")], [("s/f", NEW)], s=s(b"x/y"), x=implied(), x_y=implied(), x_y_f=f()
    ),
    "parent is a symlink out of the root": case(
        [symlink("s", "../../../x")], [("s/f", NEW)], s=s(b"../../../x"), x=implied(), x_f=f()
    ),
    "parent is a symlink to the root": case(
        [symlink("s", "/")], [("s/f", NEW), ("s/s/g", NEW)], s=s(b"/"), f=f(), g=f()
    ),
    "parent is a chain of symlinks": case(
        [*LIB, symlink("b", "a/../a/lib"), symlink("a", "/usr"), symlink("c", "./b/.")],
        [("c/n", NEW)],
        usr=d(),
        usr_lib=d(),
        usr_lib_a=f(OLD),
        usr_lib_n=f(),
        a=s(b"/usr"),
        b=s(b"a/../a/lib"),
        c=s(b"./b/."),
    ),
    "parent is a symlink of the same layer, changed on the way": case(
        [symlink("s", "x"), ("s/a", NEW), symlink("s", "y"), ("s/b", NEW)],
        s=s(b"y"),
        x=implied(),
        x_a=f(),
        y=implied(),
        y_b=f(),
    ),
    "directory in place of a symlink to a directory": case(
        [*LIB, symlink("lib", "usr/lib")],
        [directory("lib"), ("lib/n", NEW)],
        usr=d(),
        usr_lib=d(),
        usr_lib_a=f(OLD),
        lib=d(),
        lib_n=f(),
    ),
    "symlink in place of a directory, written through": case(
        [*TREE, directory("t")], [symlink("d", "t"), ("d/n", NEW)], d=s(b"t"), t=d(), t_n=f()
    ),
    "last of several entries wins": case(
        [("a", OLD), ("./a", OLD), ("/a", NEW), ("b", OLD)], [("b", OLD), ("b", NEW)], a=f(), b=f()
    ),
    "hard links are one inode": case(
        [("a", NEW), hard_link("b", "a"), hard_link("c", "b")], a=ONE, b=ONE, c=ONE
    ),
    "hard links between layers": case(
        [("a", NEW)], [hard_link("x/b", "/a")], a=TWO, x=implied(), x_b=TWO
    ),
    "hard link through a symlink": case(
        [*LIB, symlink("lib", "/usr/lib")],
        [hard_link("n", "lib/a"), hard_link("lib/m", "./lib/a")],
        usr=d(),
        usr_lib=d(),
        usr_lib_a=BOTH,
        usr_lib_m=BOTH,
        n=BOTH,
        lib=s(b"/usr/lib"),
    ),
    "hard link to a symlink": case([symlink("s", "x"), hard_link("t", "s")], s=LINKED, t=LINKED),
    "hard link keeps what its target is replaced by": case(
        [("a", OLD), hard_link("b", "a")], [("a", NEW)], a=f(), b=f(OLD)
    ),
    "hard link then whiteout of its target": case(
        [("a", OLD)], [hard_link("b", "a"), gone("a")], b=f(OLD)
    ),
    "hard link then whiteouts of all": case(
        [("d/a", OLD)], [hard_link("b", "d/a"), opaque("d")], b=f(OLD), d=implied()
    ),
    "hard link then its target anew": case(
        [("a", OLD)], [hard_link("b", "a"), ("a", NEW)], a=f(), b=f(OLD)
    ),
    "hard link in place of a file": case(
        [("a", NEW), ("b", OLD)], [hard_link("b", "a")], a=ONE, b=ONE
    ),
    "hard link in place of a directory": case(
        [("a", NEW), *TREE], [hard_link("d", "a")], a=TWO, d=TWO
    ),
    "hard link to itself": case([("a", NEW)], [hard_link("a", "a")], a=f()),
    "hard link has its target's attributes": case(
        [(member("a", mode=0o600, mtime=5, uid=7), OLD), hard_link("b", "a")],
        a=(KEPT := f(OLD, 0o600, 5, 7)),
        b=KEPT,
    ),
    "what aufs left behind": case(
        [
            directory(".wh..wh.plnk"),
            (".wh..wh.plnk/12.3", NEW),
            (".wh..wh.aufs", b""),
            directory(".wh..wh.orph"),
            (".wh..wh.orph/x", b"x"),
            ("a", OLD),
        ],
        a=f(OLD),
    ),
    "hard links to what aufs kept": case(
        [(".wh..wh.plnk/12.3", NEW), hard_link("a", ".wh..wh.plnk/12.3")],
        [hard_link("b", "a")],
        a=TWO,
        b=TWO,
    ),
    "a file below what looks like a whiteout": case(
        [(".wh.d/a", NEW)], **{".wh.d": implied(), ".wh.d_a": f()}
    ),
    "the root's attributes": case(
        [directory("./", mode=0o711, uid=3, mtime=9), ("a", NEW)],
        **{"": Inode("d", 0o711, 3, 0, 9), "a": f()},
    ),
    "the root is no file": case(
        [("./", b"x"), symlink("/", "x"), hard_link(".", "a"), ("a", NEW)], a=f()
    ),
    "a layer that occurs again": case(
        [("a", OLD)], [("b", NEW), gone("a")], [("a", OLD)], a=f(OLD), b=f()
    ),
}
