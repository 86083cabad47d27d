"""Keeps web pages of strangers away from an API that trusts whoever can reach it.

A page that a user's browser shows may send requests to the user's own machine. So a request must
name the service by an address, or by a name that is really its own (or a page could point its own
name here), a request that changes something must not come from another site, and a body must be
JSON, which no form of another site can send.
"""

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache, partial
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from shared.errors import DrayError

_READING = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_OWN_SITE = frozenset({"same-origin", "none"})
_HOSTS = 256
_SHIFTERS = "authentication"
"""No form can send this header, and who sends it often declares no JSON (`curl -d`)."""


class UnknownHostError(DrayError):
    """The request names the service by a name that it does not know as its own."""

    code = "unknown_host"
    status = 421


class ForeignOriginError(DrayError):
    """A web page of another site tries to change something here."""

    code = "foreign_origin"
    status = 403


class NotJsonError(DrayError):
    """The request has a body that is not declared to be JSON."""

    code = "not_json"
    status = 415


class Guard:
    """Refuses what a page of a stranger may have sent."""

    def __init__(self, names: Iterable[str]) -> None:
        """`names` are the service's own, beside its addresses, localhost and this host's name."""
        own = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}
        # Nearly all requests name the same few; a name that is refused raises, and is not kept.
        self._check_host = lru_cache(_HOSTS)(partial(_check_host, own=own))

    def check(self, request: web.Request) -> None:
        self._check_host(request.host)
        if request.method not in _READING:
            _check_origin(request)
            declared = request.content_type == "application/json"
            if request.body_exists and not declared and _SHIFTERS not in request.headers:
                raise NotJsonError("send the body as JSON, with Content-Type: application/json")


def _check_host(host: str, own: set[str]) -> None:
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:  # not even a name
        name = host
    if name in own or _is_address(name):
        return
    raise UnknownHostError(
        f"this service does not know itself as '{name}': use its address, or have the operator "
        "add the name to gateway.names in the settings"
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_origin(request: web.Request) -> None:
    origin = request.headers.get(hdrs.ORIGIN)
    try:
        foreign = origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()
    except ValueError:  # no origin at all
        foreign = True
    if foreign or request.headers.get("Sec-Fetch-Site", "none") not in _OWN_SITE:
        raise ForeignOriginError("requests that change something must not come from other sites")
