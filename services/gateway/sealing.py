"""Registry passwords as the catalog may hold them: sealed with a key of the site's secret.

A seal is bound to the record that it stands in: copied into another one it cannot be opened.
"""

import base64
import binascii
import json
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from services.gateway.auth.identity import Login
from services.gateway.auth.secrets import SiteSecret
from shared.errors import DrayError

PURPOSE: Final = "registry logins"
_NONCE: Final = 12


class SealBrokenError(DrayError):
    """What was sealed cannot be opened: another secret made it, or it was changed."""

    code = "seal_broken"
    status = 409


class Sealer:
    """Seals with the newest key; opens what any key that is still there has sealed."""

    def __init__(self, secret: SiteSecret) -> None:
        self._ciphers = tuple(ChaCha20Poly1305(key) for key in secret.derive_all(PURPOSE))

    def seal(self, login: Login, key: str) -> str:
        """`key` is of the record that will hold it."""
        nonce = secrets.token_bytes(_NONCE)
        plain = json.dumps([login.username, login.password]).encode()
        sealed = self._ciphers[0].encrypt(nonce, plain, key.encode())
        return base64.urlsafe_b64encode(nonce + sealed).decode("ascii")

    def open(self, sealed: str, key: str) -> Login:
        try:
            raw = base64.b64decode(sealed, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        for cipher in self._ciphers:
            try:
                plain = cipher.decrypt(raw[:_NONCE], raw[_NONCE:], key.encode())
            except (InvalidTag, ValueError):  # ValueError: not even a nonce
                continue
            username, password = json.loads(plain)
            return Login(username, password)
        raise SealBrokenError(
            "a kept registry login cannot be opened, perhaps since the site's secret was replaced: "
            "log in to the registry again (dray login)"
        )
