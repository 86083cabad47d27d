"""SHA-256 of regions of files and of small JSON values."""

import hashlib
import json
import os
from typing import Any, BinaryIO

CHUNK = 1 << 20


def canonical_sha256(facts: dict[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def region_sha256(file: BinaryIO, offset: int, length: int) -> str:
    """The digest of `length` bytes at `offset`, or of fewer where the file ends."""
    digest = hashlib.sha256()
    while length:
        piece = os.pread(file.fileno(), min(length, CHUNK), offset)
        if not piece:
            break
        digest.update(piece)
        offset += len(piece)
        length -= len(piece)
    return digest.hexdigest()
