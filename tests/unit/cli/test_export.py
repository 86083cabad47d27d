"""The parts of `dray export`: names, compressed layers, an archive, progress."""

import dataclasses
import gzip
import hashlib
import io
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cli import download
from cli.download import Download, Offer, RangesIgnoredError
from cli.errors import RefusedError
from cli.export_files import ExportFileError, Partial
from cli.export_names import annotations, file_name
from cli.export_progress import Meter
from cli.gateway import Gateway
from cli.oci.compress import Compression, compressor
from cli.oci.layout import FULL_NAME, REF_NAME
from cli.oci.places import ArchivePlace, Blob, add_blob
from cli.progress import Shown
from shared.states import State
from tests.support.scripted_gateway import Reply, Script, problem

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("reference", "name", "known_as"),
    [
        (
            "docker.io/library/ubuntu:24.04",
            "ubuntu-24.04.x",
            {REF_NAME: "24.04", FULL_NAME: "docker.io/library/ubuntu:24.04"},
        ),
        (
            f"host:5000/group/solver:2@{DIGEST}",
            "solver-2.x",
            {REF_NAME: "2", FULL_NAME: "host:5000/group/solver:2"},
        ),
        (f"host:5000/group/solver@{DIGEST}", "solver-0123456789ab.x", {}),
        (
            "custom:a/load_test:v1",
            "load_test-v1.x",
            {REF_NAME: "v1", FULL_NAME: "localhost/a/load_test:v1"},
        ),
        ("custom:Solver:v1", "Solver-v1.x", {REF_NAME: "v1"}),
    ],
)
def test_names(reference: str, name: str, known_as: dict[str, str]) -> None:
    assert file_name(reference, ".x") == name
    assert annotations(reference) == known_as


def expanded(compression: Compression, data: bytes) -> bytes:
    match compression:
        case "gzip":
            return gzip.decompress(data)
        case "zstd":
            with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                return reader.read()
        case "none":
            return data


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@given(
    sizes=st.lists(st.integers(0, 70_000), max_size=12),
    words=st.integers(1, 60_000),
    seed=st.integers(),
)
def test_what_is_compressed_by_many_is_one_stream(
    compression: Compression, sizes: list[int], words: int, seed: int
) -> None:
    """Also where a piece repeats what the one before it had."""
    dice = random.Random(seed)
    text = dice.randbytes(words)
    pieces = [(text * (size // words + 1))[:size] for size in sizes]
    made = b"".join(compressor(compression)(iter(pieces)))
    assert expanded(compression, made) == b"".join(pieces)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_fails_on_its_way_is_not_a_layer(compression: Compression) -> None:
    def pieces() -> Iterator[bytes]:
        yield bytes(1 << 20)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(compressor(compression)(pieces()))


def test_an_archive_has_the_header_that_was_known_last() -> None:
    content = random.Random(1).randbytes(1_000_001)

    def fill(file: BinaryIO) -> Blob:
        file.write(content)
        return Blob(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))

    out = io.BytesIO()
    place = ArchivePlace(out)
    large = place.blob(fill)
    small = add_blob(place, b"{}")
    place.finish()
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        found = {}
        for info in tar:
            file = tar.extractfile(info)
            found[info.name] = b"" if file is None else file.read()
    names = [f"blobs/{blob.digest.replace(':', '/')}" for blob in (large, small)]
    assert list(found) == ["blobs", "blobs/sha256", *names]
    assert [found[name] for name in names] == [content, b"{}"]
    assert len(out.getvalue()) % tarfile.BLOCKSIZE == 0


def offer(content: bytes) -> Offer:
    reference = "docker.io/library/debian:1"
    return Offer(
        id="a" * 64,
        system="c",
        type="docker",
        reference=reference,
        size=len(content),
        content_digest="d" * 64,
        platform="linux/amd64",
        private=False,
        file=None,
    )


FILE = f"GET /api/v1/images/c/id/{'a' * 64}/export/squashfs"


def test_what_is_busy_is_asked_again_and_what_is_gone_is_not(served: tuple[str, Script]) -> None:
    url, script = served
    busy = dataclasses.replace(problem(429, "too_many_exports", "wait"), retry_after=0)
    proxy = Reply(b"<html>", 502, "text/html")
    short = Reply(b"the content", 200, "application/octet-stream")
    script.on(FILE, busy, proxy, problem(503, "export_unavailable", "not here"), short)
    reasons: list[str] = []
    told = Download(Gateway(url), offer(b"the content"), lambda _, why: reasons.append(why))
    assert b"".join(told.pieces(0)) == b"the content"
    assert len(reasons) == 3
    assert "wait" in reasons[0]
    script.on(FILE, problem(412, "image_changed", "another"))
    with pytest.raises(RefusedError, match="another"):
        list(told.pieces(0))
    assert len(reasons) == 3


def test_a_partial_file_that_others_laid_out_is_left_alone(tmp_path: Path) -> None:
    """Its name can be guessed: what is private would be written into what others can read."""
    target, wanted = tmp_path / "image.squashfs", offer(b"secret")
    with Partial(target, wanted) as partial:
        partial.append(b"sec")
    with Partial(target, wanted) as partial:
        assert partial.length == 3, "one's own is gone on with"
    partial.path.with_name("another").hardlink_to(partial.path)
    with pytest.raises(ExportFileError, match="no file of yours alone"):
        Partial(target, wanted)
    partial.path.unlink()
    os.mkfifo(partial.path)
    with pytest.raises(ExportFileError, match="no file of yours alone"):
        Partial(target, wanted)
    partial.path.unlink()
    if os.geteuid() == 0:
        partial.path.touch()
        os.chown(partial.path, 1000, 1000)
        with pytest.raises(ExportFileError, match="no file of yours alone"):
            Partial(target, wanted)


def test_parts_that_are_no_parts_are_noticed(served: tuple[str, Script]) -> None:
    url, script = served
    script.on(FILE, Reply(b"the content", 200, "application/octet-stream"))
    with pytest.raises(RangesIgnoredError, match="Range"):
        list(Download(Gateway(url), offer(b"the content"), lambda *_: None).pieces(4))


def test_it_is_given_up_in_the_end(
    served: tuple[str, Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, script = served
    monkeypatch.setattr(download, "PATIENCE", 0.05)
    script.on(FILE, problem(503, "export_unavailable", "not here"))
    with pytest.raises(RefusedError, match="not here"):
        list(Download(Gateway(url), offer(b"the content"), lambda *_: None).pieces(0))


class Recorder:
    """A display that remembers."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self.reasons: list[str] = []

    def update(self, pull: Shown) -> None:
        self.shown.append(pull)

    def away(self, _seconds: float, reason: str) -> None:
        self.reasons.append(reason)


def test_progress_is_told_now_and_then_and_after_a_break() -> None:
    display = Recorder()
    meter = Meter(display)
    for done in range(1000):
        meter.tell(State.TRANSFER, done, 1000)
    assert 1 <= len(display.shown) < 100
    meter.away(3.0, "broken")
    before = len(display.shown)
    meter.tell(State.TRANSFER, 1000, 1000)
    assert len(display.shown) == before + 1
    progress = display.shown[-1].progress
    assert progress is not None
    assert (progress.done, progress.total) == (1000, 1000)
    meter.tell(State.EXAMINATION)
    assert (display.shown[-1].state, display.reasons) == (State.EXAMINATION, ["broken"])
