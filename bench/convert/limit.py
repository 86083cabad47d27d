"""The limit: what any converter has to do with these layers, with the libraries that Dray uses.

Every byte of the blobs is fetched and hashed, inflated, hashed as a tar, and compressed in blocks.
With all cores busy, and nothing else to do, that takes

    max(transfer, (sha256 of blobs + gunzip + sha256 of tars + zstd) / cores)
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import zstandard
from isal import isal_zlib
from pydantic import BaseModel

from bench.convert.contenders import CORES, Source
from bench.convert.registry import RemoteLayer

BLOCK: Final = 128 << 10
LEVEL: Final = 3
CONNECTIONS: Final = 3
"""What a converter uses unless told otherwise."""

_PIECE: Final = 1 << 20
_Result = TypeVar("_Result")


class Limit(BaseModel):
    """Seconds: of wall for the transfer, of one processor for the rest."""

    transfer: float
    sha256_blobs: float
    gunzip: float
    sha256_tars: float
    zstd: float
    cores: int
    blob_bytes: int
    tar_bytes: int

    @property
    def work(self) -> float:
        return (self.sha256_blobs + self.gunzip + self.sha256_tars + self.zstd) / self.cores

    @property
    def seconds(self) -> float:
        return max(self.transfer, self.work)


def measure_limit(source: Source, tag: str) -> Limit:
    """Fetch all layers to nothing, then do each kind of work on them."""
    layers = list(dict.fromkeys(source.registry.layers(source.repository, tag)))
    began = time.monotonic()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        sizes = list(pool.map(lambda layer: _fetch(source, layer), layers))
    transfer = time.monotonic() - began
    work = _Work()
    for layer in layers:
        work.add(source.registry.read(source.repository, layer.digest))
    return Limit(
        transfer=transfer,
        sha256_blobs=work.seconds["blob"],
        gunzip=work.seconds["gunzip"],
        sha256_tars=work.seconds["tar"],
        zstd=work.seconds["zstd"],
        cores=CORES,
        blob_bytes=sum(sizes),
        tar_bytes=work.tar_bytes,
    )


def _fetch(source: Source, layer: RemoteLayer) -> int:
    return sum(len(piece) for piece in source.registry.read(source.repository, layer.digest))


class _Work:
    """Does the four kinds of work piece by piece, and adds up what each one took."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("blob", "gunzip", "tar", "zstd"), 0.0)
        self.tar_bytes = 0
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)

    def add(self, blob: Iterator[bytes]) -> None:
        blob_digest, tar_digest = hashlib.sha256(), hashlib.sha256()
        inflater = isal_zlib.decompressobj(wbits=31)
        rest = b""
        for piece in blob:
            self._timed("blob", blob_digest.update, piece)
            pending = piece
            while pending:
                tar = self._timed("gunzip", inflater.decompress, pending, _PIECE)
                pending = inflater.unconsumed_tail
                if inflater.eof:
                    pending = inflater.unused_data
                    inflater = isal_zlib.decompressobj(wbits=31)
                self.tar_bytes += len(tar)
                self._timed("tar", tar_digest.update, tar)
                rest = self._timed("zstd", self._compress, rest + tar)
        self._timed("zstd", self._compressor.compress, rest)

    def _compress(self, data: bytes) -> bytes:
        """Whole blocks; returns what is left."""
        view = memoryview(data)
        whole = len(data) - len(data) % BLOCK
        for start in range(0, whole, BLOCK):
            self._compressor.compress(view[start : start + BLOCK])
        return data[whole:]

    def _timed(self, kind: str, work: Callable[..., _Result], *arguments: object) -> _Result:
        began = time.thread_time()
        result = work(*arguments)
        self.seconds[kind] += time.thread_time() - began
        return result
