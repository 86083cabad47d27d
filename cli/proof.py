"""How a command proves to a gateway who runs it: a token, MUNGE, or a socket's peer.

A token is as good as its owner until it ends, so it goes only where nobody can read along. A MUNGE
credential can be used once, and its payload is encrypted.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cli.errors import CliError, UsageError
from shared.errors import MissingDependencyError

TOKEN: Final = "DRAY_TOKEN"  # noqa: S105 - a variable's name
TOKEN_FILE: Final = "DRAY_TOKEN_FILE"  # noqa: S105
MUNGE_SOCKET: Final = "DRAY_MUNGE_SOCKET"
NO_MUNGE: Final = "none"
_MAX_TOKEN: Final = 4096


class ProofError(CliError):
    """This machine cannot say who we are."""

    code = "cannot_prove"


def to_socket() -> Mapping[str, str]:
    """The kernel tells a gateway who connects; a token is used all the same if there is one."""
    token = _token()
    return {} if token is None else _bearer(token)


def to_host(host: str, *, secure: bool) -> Mapping[str, str]:
    token = _token()
    if token is None:
        return _munge()
    if not secure and not loopback(host):
        raise UsageError(
            f"a token would travel to {host} readable for everybody on the way: name the gateway "
            f"with https://, or unset {TOKEN} and {TOKEN_FILE}"
        )
    return _bearer(token)


def _bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _token() -> str | None:
    """What the environment says; never an argument, which everybody can see."""
    token = os.environ.get(TOKEN, "").strip()
    named = os.environ.get(TOKEN_FILE)
    if not token and named:
        try:
            with Path(named).open(encoding="ascii") as file:
                token = file.read(_MAX_TOKEN + 1).strip()
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is no text of a token"
            raise UsageError(f"{TOKEN_FILE}: cannot read {named}: {reason}") from exc
        if not token:
            raise UsageError(f"{TOKEN_FILE}: {named} is empty; write what `dray token` prints")
    if not token:
        return None
    if len(token) > _MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{TOKEN} and {TOKEN_FILE} must hold what `dray token` prints")
    return token


def _munge() -> Mapping[str, str]:
    named = os.environ.get(MUNGE_SOCKET)
    if named == NO_MUNGE:
        return {}
    from shared.munge import Munge, MungeError  # noqa: PLC0415

    munge = Munge(Path(named) if named else None)
    if not named and not munge.there():
        return {}
    try:
        return {"Authorization": f"MUNGE {munge.encode()}"}
    except (MungeError, MissingDependencyError) as exc:
        raise ProofError(
            f"MUNGE cannot say who you are ({exc.message}); {MUNGE_SOCKET}={NO_MUNGE} goes on "
            "without, as nobody in particular"
        ) from exc


def loopback(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    if host == "localhost":
        return True
    import ipaddress  # noqa: PLC0415

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
