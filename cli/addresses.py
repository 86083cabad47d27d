"""Where gateways are: how to connect to each, and what tells it who asks."""

import errno
import http.client
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from cli import proof
from cli.defaults import LOCAL_GATEWAY, LOOPBACK_GATEWAY, usual_gateway_sockets
from cli.errors import UsageError
from cli.http import Connect, UnixConnection

_NOT_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.EACCES, None)
"""No socket, one that nobody serves, one that is not for us, a path too long to be one."""
_LOOK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """One gateway. `prove` makes the headers of one request, anew for each."""

    name: str
    connect: Connect
    prove: Callable[[], Mapping[str, str]]


def addresses(urls: str) -> list[Address]:
    """Of several, separated by commas; "local" is whatever gateway this machine has."""
    found = [_address(url.strip()) for url in urls.split(",") if url.strip()]
    if not found:
        raise UsageError("no gateway is named: give --url or set DRAY_URL")
    return found


def local_socket() -> Path | None:
    """The first of the usual sockets that a gateway serves."""
    return next((path for path in usual_gateway_sockets() if served(path)), None)


def _address(url: str) -> Address:
    if url == LOCAL_GATEWAY:
        path = local_socket()
        url = LOOPBACK_GATEWAY if path is None else f"unix://{path}"
    parts = urlsplit(url)
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        return _unix(unquote(parts.path))
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    bare = parts.path in {"", "/"} and not parts.query and not parts.username
    if parts.scheme not in {"http", "https"} or not host or not bare:
        raise UsageError(
            f"{url!r} is no gateway's address: write it like {LOOPBACK_GATEWAY}, or "
            "unix:///run/dray/gateway.sock"
        )
    secure = parts.scheme == "https"

    def connect(timeout: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(host, port, timeout=timeout)

    return Address(
        f"{parts.scheme}://{parts.netloc}", connect, lambda: proof.to_host(host, secure=secure)
    )


def _unix(path: str) -> Address:
    return Address(f"unix://{path}", lambda timeout: UnixConnection(path, timeout), proof.to_socket)


def served(path: Path) -> bool:
    """Whether somebody listens; a gateway that is only slow does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_LOOK_SECONDS)
        try:
            connection.connect(str(path))
        except OSError as exc:
            return exc.errno not in _NOT_THERE
    return True
