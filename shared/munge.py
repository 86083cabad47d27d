"""MUNGE credentials, by the library that comes with it: who somebody is, as this cluster's
daemons agree. Standard library only, since the command line needs it too.

The calls block, and give the interpreter's lock away meanwhile. The payload of a credential may
hold passwords: it appears in no error and no repr.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

from shared.errors import DrayError, MissingDependencyError

LIBRARY: Final = "libmunge.so.2"
_OPT_TTL: Final = 4
_OPT_SOCKET: Final = 8
_OPT_UID_RESTRICTION: Final = 9


class Code(IntEnum):
    """What libmunge answers, as far as it makes a difference."""

    SUCCESS = 0
    SOCKET = 6
    TIMEOUT = 7
    EXPIRED = 15
    REWOUND = 16
    REPLAYED = 17
    UNAUTHORIZED = 18


_STALE: Final = frozenset({Code.EXPIRED, Code.REPLAYED})


class MungeError(DrayError):
    """MUNGE could not make, or did not accept, a credential; `reason` is its own code."""

    code = "munge_failed"

    def __init__(self, message: str, reason: int) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Credential:
    """What a daemon vouches for: these ids asked for it, with this payload."""

    uid: int
    gid: int
    payload: bytes = field(repr=False)


class Munge:
    """The daemon behind a socket; None: where the library expects it."""

    def __init__(self, socket: Path | None = None) -> None:
        self._socket = socket

    def decode(self, credential: str, *, stale: bool = False) -> Credential:
        """Whose it is. The daemon takes each credential once, and only while it is fresh.

        `stale` is for what a process keeps for itself: it may be old, and read again.
        """
        library = _library()
        payload, length = ctypes.c_void_p(), ctypes.c_int()
        uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
        with self._context(library) as context:
            code = library.munge_decode(
                credential.encode("ascii"),
                context,
                ctypes.byref(payload),
                ctypes.byref(length),
                ctypes.byref(uid),
                ctypes.byref(gid),
            )
            try:
                # Also what is refused, as expired or replayed, comes with its payload.
                if not (stale and code in _STALE):
                    _check(library, context, code)
                content = ctypes.string_at(payload, length.value) if payload.value else b""
            finally:
                _wipe(library, payload, length.value)
        return Credential(uid.value, gid.value, content)

    def encode(
        self, payload: bytes = b"", *, ttl: int | None = None, only_uid: int | None = None
    ) -> str:
        """A credential of this process; `only_uid` is the one user who may decode it."""
        library = _library()
        made = ctypes.c_void_p()
        with self._context(library) as context:
            if ttl is not None:
                _check(library, context, library.munge_ctx_set(context, _OPT_TTL, ttl))
            if only_uid is not None:
                code = library.munge_ctx_set(context, _OPT_UID_RESTRICTION, only_uid)
                _check(library, context, code)
            code = library.munge_encode(ctypes.byref(made), context, payload, len(payload))
            try:
                _check(library, context, code)
                return ctypes.string_at(made).decode("ascii")
            finally:
                _wipe(library, made, 0)

    def there(self) -> bool:
        """Whether library and socket exist here; the daemon may be gone nevertheless."""
        try:
            library = _library()
        except MissingDependencyError:
            return False
        with self._context(library) as context:
            where = ctypes.c_char_p()
            code = library.munge_ctx_get(context, _OPT_SOCKET, ctypes.byref(where))
            return code == Code.SUCCESS and Path(os.fsdecode(where.value or b"")).is_socket()

    @contextmanager
    def _context(self, library: Any) -> Iterator[ctypes.c_void_p]:
        context = ctypes.c_void_p(library.munge_ctx_create())
        if context.value is None:
            raise MemoryError
        try:
            if self._socket is not None:
                path = os.fsencode(self._socket)
                _check(library, context, library.munge_ctx_set(context, _OPT_SOCKET, path))
            yield context
        finally:
            library.munge_ctx_destroy(context)


@cache
def _library() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as exc:
        raise MissingDependencyError(
            f"{LIBRARY} is not installed on this machine: install MUNGE's library (libmunge2 on "
            "Debian, munge-libs on Red Hat), or prove who you are in another way"
        ) from exc
    library.munge_ctx_create.restype = ctypes.c_void_p
    library.munge_ctx_strerror.restype = ctypes.c_char_p
    library.munge_strerror.restype = ctypes.c_char_p
    library.free.argtypes = [ctypes.c_void_p]
    library.free.restype = None
    return library


def _wipe(library: Any, allocated: ctypes.c_void_p, length: int) -> None:
    if allocated.value:
        ctypes.memset(allocated, 0, length)
        library.free(allocated)


def _check(library: Any, context: ctypes.c_void_p, code: int) -> None:
    if code == Code.SUCCESS:
        return
    said = library.munge_ctx_strerror(context) or library.munge_strerror(code) or b"unknown error"
    raise MungeError(said.decode(errors="replace"), code)
