"""Layers in dialects of tar that other tools get wrong, each with the tree that it means."""

from collections.abc import Callable

from tests.support.nasty_stacks import Case
from tests.support.overlay_model import Inode, content
from tests.support.rawtar import (
    END,
    base256,
    header,
    long_name,
    octal,
    old_sparse_header,
    padded,
    pax,
)

DATA = b"some data"
BODY = padded(DATA)
LONG = b"l" * 120 + b"/" + b"n" * 200
GNU = b"ustar  \0"


def entry(name: bytes, flag: bytes = b"0", **fields: object) -> bytes:
    """A header, and the data where there may be some."""
    if flag in {b"0", b"\0", b"7"}:
        return header(name, flag, size=len(DATA), **fields) + BODY  # type: ignore[arg-type]
    return header(name, flag, **fields)  # type: ignore[arg-type]


def f(**fields: object) -> Inode:
    return Inode("f", **{"mode": 0o644, "detail": content(DATA), **fields})  # type: ignore[arg-type]


def d(**fields: object) -> Inode:
    return Inode("d", **fields)  # type: ignore[arg-type]


def s(target: bytes) -> Inode:
    return Inode("l", 0o777, detail=target)


def case(*parts: bytes, **tree: Inode) -> Case:
    """The names of `tree` are paths with "_" for "/"."""
    named = {name.replace("_", "/").encode(): node for name, node in tree.items()}
    return at(named, *parts)


def at(tree: dict[bytes, Inode], *parts: bytes, end: bytes = END) -> Case:
    return Case((b"".join(parts) + end,), tree)


def sparse(size: int, regions: list[tuple[int, int]]) -> dict[str, Case]:
    """One file in all four formats."""
    whole = bytearray(size)
    stored = b""
    for offset, length in regions:
        piece = bytes(range(1, 251)) * (length // 250 + 1)
        whole[offset : offset + length] = piece[:length]
        stored += piece[:length]
    tree = {b"f": Inode("f", 0o644, detail=content(bytes(whole))), b"g": f()}
    pairs = [(b"%d" % offset, b"%d" % length) for offset, length in regions]
    numbers = [number for pair in pairs for number in pair]
    sized, count = b"%d" % size, b"%d" % len(pairs)
    lines = padded(b"\n".join([count, *numbers]) + b"\n")
    body, behind = padded(stored), entry(b"g")
    alternating = [
        record
        for offset, length in pairs
        for record in ((b"GNU.sparse.offset", offset), (b"GNU.sparse.numbytes", length))
    ]
    name = f"{len(regions)} regions in {size} bytes"
    return {
        f"sparse, gnu, {name}": at(
            tree, old_sparse_header(b"f", regions, size, len(stored)), body, behind
        ),
        f"sparse, pax 0.0, {name}": at(
            tree,
            pax((b"GNU.sparse.size", sized), (b"GNU.sparse.numblocks", count), *alternating),
            header(b"f", size=len(stored)),
            body,
            behind,
        ),
        f"sparse, pax 0.1, {name}": at(
            tree,
            pax(
                (b"GNU.sparse.size", sized),
                (b"GNU.sparse.numblocks", count),
                (b"GNU.sparse.name", b"f"),
                (b"GNU.sparse.map", b",".join(numbers)),
            ),
            header(b"GNUSparseFile.1/f", size=len(stored)),
            body,
            behind,
        ),
        f"sparse, pax 1.0, {name}": at(
            tree,
            pax(
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", b"f"),
                (b"GNU.sparse.realsize", sized),
            ),
            header(b"GNUSparseFile.1/f", size=len(lines) + len(stored)),
            lines,
            body if stored else b"",
            behind,
        ),
    }


def xattr(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return b"SCHILY.xattr." + name, value


CHECKSUMS: dict[str, Callable[[int], bytes]] = {
    "leading spaces": lambda total: b"%7o\0" % total,
    "no terminator": lambda total: b"%08o" % total,
    "space first": lambda total: b" %06o\0" % total,
}


def summed(block: bytes, notation: Callable[[int], bytes]) -> bytes:
    total = sum(block[:148] + b" " * 8 + block[156:512])
    return block[:148] + notation(total) + block[156:]


CASES: dict[str, Case] = {
    "every way to say the same name": case(
        *(entry(name) for name in (b"./a", b"/b", b".//c", b"x/../d", b"../../e", b"/../f", b"g/")),
        **{name: f() for name in "abcdefg"},
    ),
    "names that are nothing": case(
        *(header(name, b"5", mode=octal(0o755, 8)) for name in (b"", b".", b"/", b"./", b"a/..")),
        entry(b""),
        entry(b".."),
        entry(b"x"),
        x=f(),
    ),
    "names of all bytes": at(
        {bytes([n]) + b"\n\\": f() for n in range(1, 256) if n != ord("/")},
        *(entry(bytes([n]) + b"\n\\") for n in range(1, 256) if n != ord("/")),
    ),
    "dots that are names": at(
        {b"...": f(), b"..a": f(), b".b": f(), b"c.": f(), b"d..": d(), b"d../.e": f()},
        *(entry(name) for name in (b"...", b"./..a", b".b", b"c.", b"d../.e")),
    ),
    "long names of both kinds": at(
        {b"l" * 120: d(), LONG: f(), b"s": s(LONG), b"t": s(LONG)},
        long_name(LONG),
        entry(b"cut", magic=GNU),
        long_name(LONG, b"K"),
        entry(b"s", b"2", link=b"cut", magic=GNU),
        pax((b"linkpath", LONG)),
        entry(b"t", b"2", link=b"cut"),
    ),
    "GNU's long name counts, whatever pax says": case(
        long_name(b"a"),
        pax((b"path", b"wrong")),
        entry(b"cut"),
        pax((b"path", b"wrong")),
        long_name(b"b"),
        entry(b"cut"),
        long_name(b""),
        entry(b"c"),
        a=f(),
        b=f(),
        c=f(),
    ),
    "the last of several pax headers counts": case(
        pax((b"path", b"wrong"), (b"mtime", b"5")), pax((b"path", b"a")), entry(b"cut"), a=f()
    ),
    "a prefix that Go wrote into GNU's headers": at(
        {b"p" * 120: d(), b"p" * 120 + b"/a": f()},
        entry(b"a", magic=GNU, tail=b"p" * 120),
    ),
    "GNU's times are no prefix": case(
        entry(b"a", magic=GNU, tail=octal(1_600_000_000, 12) + octal(7, 12)), a=f()
    ),
    "a tar without any magic": case(
        header(b"d/", b"\0", magic=bytes(8)),
        entry(b"d/f", b"\0", magic=bytes(8)),
        d=d(mode=0o644),
        d_f=f(),
    ),
    "an old directory of some size has no data": case(
        header(b"d/", b"\0", size=512), entry(b"f"), d=d(mode=0o644), f=f()
    ),
    "links and pipes of some size have no data": case(
        entry(b"f"),
        header(b"h", b"1", size=700, link=b"f"),
        header(b"s", b"2", size=700, link=b"f"),
        header(b"d", b"5", size=700),
        header(b"p", b"6", size=700),
        f=(shared := f()),
        h=shared,
        s=s(b"f"),
        d=d(mode=0o644),
        p=Inode("p", 0o644),
    ),
    "contiguous files": case(entry(b"f", b"7"), f=f()),
    "the archive's label": case(header(b"label", b"V"), entry(b"f"), f=f()),
    "GNU's dump directory": case(
        header(b"d", b"D", size=9), BODY, entry(b"d/f"), d=d(mode=0o644), d_f=f()
    ),
    "global records until taken back": case(
        pax((b"comment", b"0" * 40), (b"mtime", b"7"), (b"uid", b"3"), flag=b"g"),
        entry(b"a"),
        pax((b"mtime", b"9"), (b"uid", b"")),
        entry(b"b"),
        pax((b"mtime", b""), flag=b"g"),
        entry(b"c", mtime=octal(5, 12)),
        a=f(mtime=7, uid=3),
        b=f(mtime=9),
        c=f(mtime=5, uid=3),
    ),
    "only a comment": case(pax((b"comment", b"x=y\n"), flag=b"g"), entry(b"a"), a=f()),
    "numbers of every notation": case(
        entry(b"a", mode=b" 644 \0\0\0", uid=b"     7 \0", mtime=b"00000000011\0"),
        entry(b"b", mode=b"0100644\0", uid=b"00000007", mtime=b"000000000011"),
        entry(b"c", mode=base256(0o100644, 8), uid=base256(7, 8), mtime=base256(9, 12)),
        entry(b"d", mode=b"\0 644 \0\0", uid=bytes(8), mtime=bytes(12)),
        a=f(uid=7, mtime=9),
        b=f(uid=7, mtime=9),
        c=f(uid=7, mtime=9),
        d=f(),
    ),
    "owners beyond octal, and below zero": case(
        entry(b"a", uid=base256(4_000_000_000, 8), gid=base256(-2, 8)),
        pax((b"uid", b"4294967294"), (b"gid", b"-2")),
        entry(b"b"),
        entry(b"c", uid=base256(-1, 8), gid=base256(0xFFFFFFFF, 8)),
        a=f(uid=4_000_000_000, gid=0xFFFFFFFE),
        b=f(uid=0xFFFFFFFE, gid=0xFFFFFFFE),
        c=f(),
    ),
    "times of every kind": case(
        *(
            pax((b"mtime", time)) + entry(b"%d" % n)
            for n, time in enumerate(
                [b"7.999999999", b"-1.5", b"-0.0", b"99999999999", b"0.5", b"8."]
            )
        ),
        entry(b"x", mtime=base256(-1, 12)),
        entry(b"y", mtime=base256(1 << 62, 12)),
        entry(b"z", mtime=octal(0xFFFFFFFF, 12)),
        **{
            "0": f(mtime=7),
            "1": f(),
            "2": f(),
            "3": f(mtime=0xFFFFFFFF),
            "4": f(),
            "5": f(mtime=8),
        },
        x=f(),
        y=f(mtime=0xFFFFFFFF),
        z=f(mtime=0xFFFFFFFF),
    ),
    "modes of all bits": case(
        entry(b"a", mode=octal(0o107777, 8)),
        entry(b"b", mode=octal(0, 8)),
        a=f(mode=0o7777),
        b=f(mode=0),
    ),
    "attributes": case(
        pax(
            xattr(b"user.a", b"x=y\n\0z"),
            xattr(b"user.empty", b""),
            xattr(b"user.\xff", b"\xff"),
            xattr(b"system.posix_acl_access", b"x"),
            xattr(b"security.capability", b"\1\0\0\2" + bytes(16)),
            (b"LIBARCHIVE.xattr.user.b", b"eA=="),
            (b"RHT.security.selinux", b"x"),
        ),
        entry(b"f"),
        pax(xattr(b"user.s", b"x"), xattr(b"trusted.s", b"y")),
        entry(b"s", b"2", link=b"f"),
        pax(xattr(b"user.p", b"x"), xattr(b"trusted.p", b"y")),
        entry(b"p", b"6"),
        pax(xattr(b"user.d", b"x")),
        entry(b"d", b"5"),
        pax(xattr(b"user.h", b"x")),
        entry(b"h", b"1", link=b"f"),
        f=(
            named := f(
                xattrs=(
                    (b"security.capability", b"\1\0\0\2" + bytes(16)),
                    (b"user.a", b"x=y\n\0z"),
                    (b"user.empty", b""),
                    (b"user.\xff", b"\xff"),
                )
            )
        ),
        h=named,
        s=Inode("l", 0o777, detail=b"f", xattrs=((b"trusted.s", b"y"),)),
        p=Inode("p", 0o644, xattrs=((b"trusted.p", b"y"),)),
        d=d(mode=0o644, xattrs=((b"user.d", b"x"),)),
    ),
    "attributes whose names begin alike": case(
        pax(xattr(b"user.a", b"1"), xattr(b"user.ab", b"2"), xattr(b"user.abc", b"3")),
        entry(b"f"),
        f=f(xattrs=((b"user.a", b"1"), (b"user.ab", b"2"), (b"user.abc", b"3"))),
    ),
    "a path of three hundred parts": at(
        {b"/".join([b"d"] * n): Inode("d") for n in range(1, 300)} | {b"/".join([b"d"] * 300): f()},
        pax((b"path", b"/".join([b"d"] * 300))),
        entry(b"cut"),
    ),
    "the longest value of an attribute": case(
        pax(xattr(b"user.a", b"v" * 65_536)), entry(b"f"), f=f(xattrs=((b"user.a", b"v" * 65_536),))
    ),
    "the size of a pax header wins": case(
        pax((b"size", b"%d" % len(DATA))), header(b"a", size=0), BODY, entry(b"b"), a=f(), b=f()
    ),
    "a header that is summed as signed characters": at(
        {b"\xe9": f()}, header(b"\xe9", size=len(DATA), signed=True), BODY
    ),
    **{
        f"a checksum with {name}": case(summed(header(b"a", size=len(DATA)), how), BODY, a=f())
        for name, how in CHECKSUMS.items()
    },
    "no end at all": at({b"a": f()}, entry(b"a"), end=b""),
    "no padding of the last file": at({b"a": f()}, header(b"a", size=len(DATA)), end=DATA),
    "one block of zeros at the end": at({b"a": f()}, entry(b"a"), end=bytes(512)),
    "something behind the end": at({b"a": f()}, entry(b"a"), end=END + entry(b"b")),
    "nothing at all": at({}, end=b""),
    **sparse(50_000, []),
    **sparse(50_000, [(0, 1)]),
    **sparse(50_000, [(49_999, 1)]),
    **sparse(0, []),
    **sparse(300_001, [(4096, 4096), (100_000, 40_000), (140_000, 5), (300_000, 1), (300_001, 0)]),
    **sparse(40_000, [(n * 1300, 600) for n in range(30)]),
}
