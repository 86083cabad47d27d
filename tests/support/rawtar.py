"""Tar blocks written by hand, for the dialects that the standard library reads but cannot write."""

BLOCK = 512


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    if value < 0:
        return (value + (1 << (8 * width))).to_bytes(width, "big")
    return bytes([0x80]) + value.to_bytes(width - 1, "big")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def header(
    name: bytes,
    flag: bytes = b"0",
    *,
    size: int | bytes = 0,
    mode: bytes = octal(0o644, 8),
    uid: bytes = octal(0, 8),
    gid: bytes = octal(0, 8),
    mtime: bytes = octal(0, 12),
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    tail: bytes = b"",
    signed: bool = False,
) -> bytes:
    """One header block; `tail` is what follows the device numbers' place, from byte 345 on."""
    sized = octal(size, 12) if isinstance(size, int) else size
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            mode,
            uid,
            gid,
            sized,
            mtime,
            b" " * 8,
            flag,
            link.ljust(100, b"\0"),
            magic,
            bytes(80),
            tail,
        )
    ).ljust(BLOCK, b"\0")
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in block)
    return block[:148] + b"%06o\0 " % total + block[156:]


def old_sparse_header(name: bytes, regions: list[tuple[int, int]], size: int, stored: int) -> bytes:
    """GNU's own sparse format: four regions in the header, further ones in blocks behind it."""
    pairs = [octal(offset, 12) + octal(length, 12) for offset, length in regions]
    first, rest = pairs[:4], pairs[4:]
    tail = bytes(41) + b"".join(first).ljust(96, b"\0") + bytes([bool(rest)]) + octal(size, 12)
    blocks = [header(name, b"S", size=stored, magic=b"ustar  \0", tail=tail)]
    while rest:
        part, rest = rest[:21], rest[21:]
        blocks.append((b"".join(part).ljust(504, b"\0") + bytes([bool(rest)])).ljust(BLOCK, b"\0"))
    return b"".join(blocks)


def pax(*records: tuple[bytes, bytes], flag: bytes = b"x") -> bytes:
    data = b"".join(record(key, value) for key, value in records)
    return header(b"pax", flag, size=len(data)) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def long_name(name: bytes, flag: bytes = b"L") -> bytes:
    data = name + b"\0"
    return header(b"././@LongLink", flag, size=len(data), magic=b"ustar  \0") + padded(data)


END = bytes(2 * BLOCK)
