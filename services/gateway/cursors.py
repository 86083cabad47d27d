"""Cursors of pages: where the next one begins, readable by the gateways alone.

A cursor holds the last key of a page. Sealed under a key of the site's secret, it says nothing to
its holder, cannot be made up, and is good at every gateway, for the same kind of list only.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Annotated, Final

from pydantic import BeforeValidator, StringConstraints

from services.gateway.auth.secrets import SiteSecret
from shared.errors import InvalidInputError

_VERSION: Final = "1"
_TAG: Final = 16
_BLOCK: Final = 64
MOST_TEXT: Final = 2048

Cursor = Annotated[str, StringConstraints(max_length=MOST_TEXT, pattern=r"^[A-Za-z0-9_-]*$")]
After = Annotated[Cursor | None, BeforeValidator(lambda text: text or None)]
"""As a query's `after`; none, and an empty one, is the first page."""


class InvalidCursorError(InvalidInputError):
    """A cursor that no gateway of this site made for this list."""

    code = "invalid_cursor"


class Cursors:
    """Seals and opens: a keyed hash of the text is its tag, and begins its key stream."""

    def __init__(self, secret: SiteSecret) -> None:
        self._keys = secret.derive_all("cursors")

    def seal(self, kind: str, key: str) -> str:
        text = key.encode()
        # In steps: its length would tell something of the key.
        text += b"\0" * (-len(text) % _BLOCK)
        secret = self._keys[0]
        tag = _tag(secret, kind, text)
        return _VERSION + urlsafe_b64encode(tag + _crypt(secret, tag, text)).decode().rstrip("=")

    def open(self, kind: str, cursor: str) -> str:
        try:
            sealed = urlsafe_b64decode(cursor[1:] + "=" * (-len(cursor[1:]) % 4))
        except ValueError:
            sealed = b""
        tag = sealed[:_TAG]
        for secret in self._keys if cursor.startswith(_VERSION) else ():
            text = _crypt(secret, tag, sealed[_TAG:])
            if hmac.compare_digest(_tag(secret, kind, text), tag):
                return text.rstrip(b"\0").decode()
        raise InvalidCursorError(
            "this cursor is none of this list: begin without one, then give back `next` as it is"
        )


def _tag(secret: bytes, kind: str, text: bytes) -> bytes:
    return blake2b(text, key=secret, digest_size=_TAG, person=kind.encode()[:16]).digest()


def _crypt(secret: bytes, tag: bytes, text: bytes) -> bytes:
    stream = b"".join(
        blake2b(tag + number.to_bytes(4, "big"), key=secret, person=b"stream").digest()
        for number in range(len(text) // _BLOCK + 1)
    )
    return bytes(a ^ b for a, b in zip(text, stream, strict=False))
