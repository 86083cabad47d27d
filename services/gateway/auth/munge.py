"""Users who prove themselves by a MUNGE credential: one for each request.

The daemon on the gateway's machine decides: it refuses a credential that it has seen, one that is
too old or made for another user's eyes. A credential is a secret until it is used.
"""

import re
from functools import partial
from pathlib import Path
from typing import Final

from services.gateway.auth.identity import NotAuthenticatedError
from services.gateway.auth.workers import NoAnswerError, Workers
from shared.errors import MissingDependencyError
from shared.munge import Code, Credential, Munge, MungeError

MAX_PAYLOAD: Final = 64 << 10
MAX_CREDENTIAL: Final = 90 << 10
"""What a payload of that size becomes in base64, with MUNGE's own headers."""
_SHAPE: Final = re.compile(r"MUNGE:[A-Za-z0-9+/=]+:")
_THREADS: Final = 4
_WAITING: Final = 2048
_SECONDS: Final = 5.0


class MungeInvalidError(NotAuthenticatedError):
    """No credential that this cluster's MUNGE made."""

    code = "munge_invalid"


class MungeExpiredError(NotAuthenticatedError):
    """A credential that is too old."""

    code = "munge_expired"


class MungeRewoundError(NotAuthenticatedError):
    """A credential from the future."""

    code = "munge_rewound"


class MungeReplayedError(NotAuthenticatedError):
    """A credential that was used before."""

    code = "munge_replayed"


class MungeRestrictedError(NotAuthenticatedError):
    """A credential that only another user or group than the gateway's may decode."""

    code = "munge_restricted"


class MungeUnavailableError(NoAnswerError):
    """The MUNGE daemon of the gateway's machine does not work."""

    code = "munge_unavailable"


_NEW_ONE: Final = "make a new one for each request"
_CLOCKS: Final = "the clocks of your machine and the gateway's differ"


class MungeUsers:
    """Credentials become ids and payloads, in a few threads."""

    def __init__(self, socket: Path | None) -> None:
        self._munge = Munge(socket)
        self._workers = Workers(
            "the MUNGE daemon", threads=_THREADS, waiting=_WAITING, seconds=_SECONDS
        )

    async def decode(self, credential: str) -> Credential:
        credential = credential.strip()
        # What is none at all is not worth a question, and a line in the daemon's log.
        if len(credential) > MAX_CREDENTIAL or _SHAPE.fullmatch(credential) is None:
            raise MungeInvalidError(
                "this is no MUNGE credential, or too long for one: send what `munge -n` prints, "
                f"with a payload of at most {MAX_PAYLOAD >> 10} KiB"
            )
        try:
            found = await self._workers.run(partial(self._munge.decode, credential))
        except MissingDependencyError as exc:
            raise MungeUnavailableError(f"at the gateway: {exc.message}") from exc
        except MungeError as exc:
            raise _refusal(exc) from exc
        if len(found.payload) > MAX_PAYLOAD:
            raise MungeInvalidError(
                f"the payload of the MUNGE credential is larger than {MAX_PAYLOAD >> 10} KiB"
            )
        return found

    def close(self) -> None:
        self._workers.close()


def _refusal(exc: MungeError) -> Exception:
    match exc.reason:
        case Code.SOCKET | Code.TIMEOUT:
            return MungeUnavailableError(
                f"the MUNGE daemon at the gateway does not work ({exc.message}): the operator "
                "can start munged, or name its socket in gateway.munge_socket"
            )
        case Code.EXPIRED:
            return MungeExpiredError(
                f"the MUNGE credential has expired: {_NEW_ONE}; if it is new, {_CLOCKS}"
            )
        case Code.REWOUND:
            return MungeRewoundError(
                f"the MUNGE credential was made in the future: {_CLOCKS}; tell the operators"
            )
        case Code.REPLAYED:
            return MungeReplayedError(f"the MUNGE credential was used before: {_NEW_ONE}")
        case Code.UNAUTHORIZED:
            return MungeRestrictedError(
                "the MUNGE credential is restricted to another user or group than the "
                "gateway's: make it without a restriction, or for the gateway's user"
            )
        case _:
            return MungeInvalidError(
                f"MUNGE refuses the credential ({exc.message}): your machine and the gateway's "
                "must have the same MUNGE key"
            )
