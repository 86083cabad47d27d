"""A layer's bytes on their way to its tar: digests and decompression, each in its own thread."""

import hashlib
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

from services.converter.packing.channel import Channel, ChannelClosedError
from services.converter.packing.errors import LayerInvalidError, LayerMismatchError
from services.converter.packing.expand import READ, expanded
from services.converter.packing.limits import Limits
from shared.image.errors import WorkCancelledError

_QUEUED_CHUNKS: Final = 8
_POLL: Final = 0.2
# A thread that does not end is stuck in a source that breaks its contract; it is a daemon.
_JOIN: Final = 30.0


class ByteSource(Protocol):
    """Where a layer's blob comes from: a Feed, or an open file."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes, b"" at the end."""

    def close(self) -> None:
        """Make a blocked `read` return or raise; may be called twice."""


@dataclass(frozen=True, slots=True)
class LayerDigests:
    """What is known of a layer beforehand: digests as "sha256:…", and the blob's size."""

    blob: str | None = None
    diff_id: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What a layer turned out to be."""

    blob: str
    diff_id: str
    blob_size: int
    tar_size: int


class LayerStream:
    """The chunks of a layer's tar. Used as a context manager: leaving it stops the threads."""

    def __init__(
        self,
        source: ByteSource,
        *,
        expected: LayerDigests,
        limits: Limits,
        on_progress: Callable[[int], None],
        cancelled: threading.Event,
    ) -> None:
        self._blob = _Blob(source, expected.size, on_progress, cancelled)
        self._expected = expected
        self._limits = limits
        self._cancelled = cancelled
        self._tar_digest = hashlib.sha256()
        self._tar_size = 0
        self._parsed: Channel[bytes] = Channel(_QUEUED_CHUNKS)
        self._hashed: Channel[bytes] = Channel(_QUEUED_CHUNKS)
        self._failure: Exception | None = None
        self._threads = (
            threading.Thread(target=self._expand, name="layer-expand", daemon=True),
            threading.Thread(target=self._digest, name="layer-digest", daemon=True),
        )

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._blob.close_source()
        self._parsed.close()
        self._hashed.close()
        for thread in self._threads:
            thread.join(_JOIN)

    def next_chunk(self) -> bytes:
        """More of the tar, b"" at its end."""
        while True:
            if self._cancelled.is_set():
                raise WorkCancelledError("packing the layer was cancelled")
            try:
                chunk = self._parsed.get(_POLL)
            except ChannelClosedError:
                if self._failure is not None:
                    raise self._failure from None
                return b""
            if chunk is not None:
                return chunk

    def finish(self) -> LayerFacts:
        """Read to the end, so that the digests cover all of it, and compare."""
        while self.next_chunk():
            pass
        for thread in self._threads:
            thread.join(_JOIN)
        facts = LayerFacts(
            blob=f"sha256:{self._blob.digest.hexdigest()}",
            diff_id=f"sha256:{self._tar_digest.hexdigest()}",
            blob_size=self._blob.size,
            tar_size=self._tar_size,
        )
        self._check_blob()
        _compare("tar has the diff id", self._expected.diff_id, facts.diff_id)
        return facts

    def blame_transfer(self) -> None:
        """After the tar made no sense: raise LayerMismatchError if the blob is to blame for it."""
        with suppress(LayerInvalidError):
            while self.next_chunk():
                pass
        self._check_blob()

    def _check_blob(self) -> None:
        digest = f"sha256:{self._blob.digest.hexdigest()}"
        _compare("blob has the size", self._expected.size, self._blob.size)
        _compare("blob has the digest", self._expected.blob, digest)

    def _expand(self) -> None:
        try:
            self._expand_all()
        except ChannelClosedError:
            pass
        except Exception as exc:  # noqa: BLE001 - raised again where the tar is read
            self._failure = exc
        finally:
            self._hashed.close()
            self._parsed.close()

    def _expand_all(self) -> None:
        try:
            for chunk in expanded(self._blob):
                self._tar_size += len(chunk)
                self._limits.check_ratio(self._blob.size, self._tar_size)
                self._hashed.put(chunk)
                self._parsed.put(chunk)
        except Exception as exc:
            invalid = isinstance(exc, LayerInvalidError)
            if self._blob.failed or not (invalid or _is_codec_error(exc)):
                raise
            # Its digest tells whether this is the layer, or what became of it on its way.
            self._blob.drain()
            if invalid:
                raise
            raise LayerInvalidError(
                f"a layer's blob cannot be decompressed ({exc}): whoever made it must make the "
                "image again"
            ) from exc
        self._blob.drain()

    def _digest(self) -> None:
        try:
            while (chunk := self._hashed.get()) is not None:
                self._tar_digest.update(chunk)
        except ChannelClosedError:
            pass


class _Blob:
    """The blob as it arrives: counted, hashed, never longer than promised."""

    def __init__(
        self,
        source: ByteSource,
        promised: int | None,
        on_progress: Callable[[int], None],
        cancelled: threading.Event,
    ) -> None:
        self._source = source
        self._promised = promised
        self._on_progress = on_progress
        self._cancelled = cancelled
        self._ahead = b""
        self.digest = hashlib.sha256()
        self.size = 0
        # Whether the source itself broke, which is not the fault of the bytes that came before.
        self.failed = False

    def peek(self, size: int) -> bytes:
        """The first bytes, which stay to be read."""
        while len(self._ahead) < size:
            piece = self._take(READ)
            if not piece:
                break
            self._ahead += piece
        return self._ahead[:size]

    def read(self, size: int = READ, /) -> bytes:
        if self._ahead:
            piece, self._ahead = self._ahead[:size], self._ahead[size:]
            return piece
        return self._take(size)

    def drain(self) -> None:
        while self.read(READ):
            pass

    def close_source(self) -> None:
        self._source.close()

    def _take(self, size: int) -> bytes:
        if self._cancelled.is_set():
            raise WorkCancelledError("packing the layer was cancelled")
        try:
            piece = self._source.read(size)
        except Exception:
            self.failed = True
            raise
        if piece:
            self.size += len(piece)
            if self._promised is not None and self.size > self._promised:
                message = f"a layer's blob is longer than the {self._promised} bytes promised"
                raise LayerMismatchError(message)
            self.digest.update(piece)
            self._on_progress(self.size)
        return piece


def _is_codec_error(error: Exception) -> bool:
    # The codecs' own classes are not at hand before they are loaded.
    codec = type(error).__name__ in {"ZstdError", "IsalError", "LZMAError"}
    return codec or isinstance(error, EOFError | OSError | zlib.error)


def _compare(what: str, expected: str | int | None, found: str | int) -> None:
    if expected is not None and expected != found:
        raise LayerMismatchError(
            f"a layer's {what} {found}, but {expected} was promised: it was damaged on its way, or "
            "is so where it lies; try again, and if it stays so, have the image made again"
        )
