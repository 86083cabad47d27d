"""The site's secret: what signs tokens and seals what the catalog must not hold in clear.

One file for all gateways. Each line is a key: the first makes what is new, all of them open what
is there. So a key is replaced by a new first line, and the old one goes when nothing of it is left.
"""

import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from shared.errors import ConfigError
from shared.files import sync_directory
from shared.logging import get_logger

log = get_logger(__name__)

SHORTEST: Final = 32
MOST_KEYS: Final = 8
_MAX_FILE: Final = 16 << 10
_SALT: Final = b"dray site secret v1"


@dataclass(frozen=True, slots=True)
class SiteSecret:
    """The keys, newest first; each purpose gets keys of its own."""

    _keys: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file, which blocks; ConfigError says what is wrong with it."""
        try:
            with path.open("rb") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IROTH:
                    log.warning("secret_readable_by_all", path=str(path), advice="chmod 0600")
                content = file.read(_MAX_FILE + 1)
        except FileNotFoundError as exc:
            raise ConfigError(
                f"gateway.secret_file: there is no {path}: make it with `openssl rand -hex 32`, "
                "readable by the gateways' user alone, the same for all gateways"
            ) from exc
        except OSError as exc:
            message = f"gateway.secret_file: cannot read {path}: {exc.strerror}"
            raise ConfigError(message) from exc
        keys = tuple(line.strip() for line in content.splitlines() if line.strip())
        if not 1 <= len(keys) <= MOST_KEYS or len(content) > _MAX_FILE:
            message = f"gateway.secret_file: {path} must hold 1 to {MOST_KEYS} lines, a key each"
            raise ConfigError(message)
        if min(map(len, keys)) < SHORTEST:
            raise ConfigError(
                f"gateway.secret_file: each line of {path} must have at least {SHORTEST} "
                "characters: make one with `openssl rand -hex 32`"
            )
        return cls(keys)

    @classmethod
    def load_or_make(cls, path: Path) -> Self:
        """For the default place: made at the first start, once, whoever starts at that moment."""
        if not path.exists():
            try:
                _make(path)
            except OSError as exc:
                raise ConfigError(
                    f"gateway.secret_file: cannot make {path}: {exc.strerror}; name a file that "
                    "exists, the same for all gateways"
                ) from exc
        return cls.load(path)

    def derive(self, purpose: str) -> bytes:
        """The key of 32 bytes that makes what is new, for this purpose alone."""
        return _derived(self._keys[0], purpose)

    def derive_all(self, purpose: str) -> tuple[bytes, ...]:
        """The keys that may have made what is there, newest first."""
        return tuple(_derived(key, purpose) for key in self._keys)


def _derived(key: bytes, purpose: str) -> bytes:
    """HKDF (RFC 5869) with SHA-256, of which one block is enough."""
    extracted = hmac.digest(_SALT, key, hashlib.sha256)
    return hmac.digest(extracted, purpose.encode() + b"\x01", hashlib.sha256)


def _make(path: Path) -> None:
    """Under its name whole or not at all; whoever is second takes what the first made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{path.name}.{secrets.token_hex(6)}.partial")
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{secrets.token_hex(32)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(own)
        except FileExistsError:
            return
        log.info(
            "secret_made", path=str(path), advice="several gateways need one gateway.secret_file"
        )
    finally:
        own.unlink()
    sync_directory(path.parent)
