"""Tars that never end or say absurd things: refused soon, by an error of ours, in little memory."""

import io
import itertools
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.converter.packing import LayerTooLargeError, Limits
from services.converter.packing.errors import LayerInvalidError
from shared.errors import DrayError
from tests.support import nasty_stacks, nasty_tars
from tests.support.packing import build_image, pack
from tests.support.rawtar import base256, header, old_sparse_header, padded, pax
from tests.support.trees import image_rows

LIMITS = Limits(max_entries=20_000, max_text=8 << 20)


class Endless(io.RawIOBase):
    """A stream of pieces, made as it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size:
            self._rest += b"".join(itertools.islice(self._pieces, 256))
        found, self._rest = self._rest[:size], self._rest[size:]
        self.given += size
        return found


# Where a header's fields are.
FIELDS = [
    (0, 100),
    (100, 8),
    (108, 8),
    (124, 12),
    (136, 12),
    (156, 1),
    (157, 100),
    (257, 8),
    (329, 16),
    (345, 155),
]
ENTRY = header(b"name")
ENDLESS: dict[str, Callable[[], Iterator[bytes]]] = {
    "entries of one name": lambda: itertools.repeat(ENTRY),
    "entries": lambda: (header(b"%d" % n) for n in itertools.count()),
    "directories that only paths name": lambda: (
        header(b"%d/%d/x" % (n, n)) for n in itertools.count()
    ),
    "whiteouts": lambda: (header(b".wh.%d" % n) for n in itertools.count()),
    "what aufs left": lambda: itertools.repeat(header(b".wh..wh.x/a")),
    "entries for the root": lambda: itertools.repeat(header(b".")),
    "labels": lambda: itertools.repeat(header(b"label", b"V")),
    "pax headers": lambda: itertools.repeat(pax((b"path", b"x"))),
    "global headers": lambda: itertools.repeat(pax((b"mtime", b"1"), flag=b"g")),
    "attributes": lambda: (
        pax((b"SCHILY.xattr.user.a", b"%d" % n * 800)) + ENTRY for n in itertools.count()
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_layer_without_end_is_given_up(tmp_path: Path, name: str) -> None:
    source = Endless(ENDLESS[name]())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LayerTooLargeError):
        pack(source, tmp_path / "p", limits=LIMITS)
    assert source.given < 300 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    assert not list(tmp_path.iterdir())


ABSURD = {
    "a name of 4 GiB": header(b"././@LongLink", b"L", size=base256(4 << 30, 12)),
    "a link target of 4 GiB": header(b"././@LongLink", b"K", size=base256(4 << 30, 12)),
    "pax records of 4 GiB": header(b"x", b"x", size=base256(4 << 30, 12)),
    "global records of 4 GiB": header(b"x", b"g", size=base256(4 << 30, 12)),
    "a file of an exbibyte": header(b"f", size=base256(1 << 60, 12)),
    "a file of 2 ** 87 bytes": header(b"f", size=base256(1 << 87, 12)),
    "a pax size of 20 digits": pax((b"size", b"9" * 20)) + header(b"f"),
    "a label of an exbibyte": header(b"l", b"V", size=base256(1 << 60, 12)),
    "a hole of 8 GiB": old_sparse_header(b"f", [(0, 1)], (8 << 30) - 1, 1),
    "a pax hole of 8 TiB": pax((b"GNU.sparse.size", b"%d" % (8 << 40)), (b"GNU.sparse.map", b"0,0"))
    + header(b"f"),
    "a million regions": pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9"))
    + header(b"f", size=8 << 20)
    + b"1048577\n",
    "a record that is longer than its header": header(b"x", b"x", size=30)
    + padded(b"9999999999999999999 a=b\n"),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_numbers_are_refused_without_their_cost(tmp_path: Path, name: str) -> None:
    source = Endless(itertools.chain([ABSURD[name]], itertools.repeat(b"1\n" * 32_768)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limits = Limits(max_bytes=64 << 20)
    with pytest.raises((LayerInvalidError, LayerTooLargeError)):
        pack(source, tmp_path / "p", limits=limits)
    assert source.given < 128 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert not list(tmp_path.iterdir())


STACKS = [case.layers for case in (nasty_stacks.CASES | nasty_tars.CASES).values() if case.layers]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_layers_become_an_image_or_an_error_of_ours(data: st.DataObject) -> None:
    layers = [bytearray(layer) for layer in data.draw(st.sampled_from(STACKS))]
    layer = data.draw(st.sampled_from(layers))
    for _ in range(data.draw(st.integers(1, 4))):
        damage(layer, data)
    with tempfile.TemporaryDirectory() as place, suppress(DrayError):
        image = build_image([bytes(layer) for layer in layers], Path(place))
        assert all(
            not {b"", b".", b".."} & set(path.split(b"/")) or not path
            for path in image_rows(image.path)
        )


def damage(layer: bytearray, data: st.DataObject) -> None:
    """Change bytes of a header and make its sum right; or drop, repeat or move blocks."""
    if not layer:
        return
    block = 512 * data.draw(st.integers(0, (len(layer) - 1) // 512))
    match data.draw(st.sampled_from(["field", "field", "field", "drop", "repeat", "cut"])):
        case "field":
            start, length = data.draw(st.sampled_from(FIELDS))
            at = min(block + start, len(layer) - 1)
            text = data.draw(st.binary(min_size=1, max_size=length))
            layer[at : at + len(text)] = text[: len(layer) - at]
            if block + 512 <= len(layer):
                total = (
                    sum(layer[block : block + 148]) + 256 + sum(layer[block + 156 : block + 512])
                )
                layer[block + 148 : block + 156] = b"%06o\0 " % total
        case "drop":
            del layer[block : block + 512]
        case "repeat":
            layer[block:block] = layer[block : block + 512]
        case _:
            del layer[block + data.draw(st.integers(0, 511)) :]
