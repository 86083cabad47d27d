"""Registry credentials that travel in a MUNGE credential's payload, as `shifterimg login` has them.

`{"authorized_locations": {"default": "user:password", "registry.example.org": "user:password"}}`.
A payload that is empty or says something else brings no credentials and is no error: many clients
encode a word or nothing at all. Only the first colon separates, so a password may hold any
character.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from services.gateway.auth.identity import Login
from shared.errors import InvalidInputError
from shared.reference import DEFAULT_REGISTRY

DEFAULT_LOCATION: Final = "default"
MAX_PAYLOAD: Final = 64 << 10
MAX_LOCATIONS: Final = 64
MAX_NAME: Final = 255
MAX_LOGIN: Final = 8 << 10

_KEY = "authorized_locations"
_DOCKER_HUB = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


class TooManyLoginsError(InvalidInputError):
    """More credentials came along than anybody has registries."""

    code = "too_many_logins"


def parse_locations(payload: bytes) -> Mapping[str, Login]:
    """Credentials by registry, in the form of references' registries, or by "default"."""
    if len(payload) > MAX_PAYLOAD:
        raise TooManyLoginsError(
            f"the credentials that came along take more than {MAX_PAYLOAD >> 10} KiB; "
            "log out of the registries that you no longer use"
        )
    logins: dict[str, Login] = {}
    for name, text in _locations(payload).items():
        login = _login(text)
        if login is not None and 0 < len(name) <= MAX_NAME and _is_text(name):
            logins[location(name)] = login
    if len(logins) > MAX_LOCATIONS:
        raise TooManyLoginsError(
            f"credentials for {len(logins)} registries came along; {MAX_LOCATIONS} are taken: "
            "log out of the registries that you no longer use"
        )
    return MappingProxyType(logins)


def location(name: str) -> str:
    """A registry as users write it at login, in the form that references have."""
    host = name.strip().lower()
    host = host.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DEFAULT_REGISTRY if host in _DOCKER_HUB else host


def _locations(payload: bytes) -> dict[str, Any]:
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    found = message.get(_KEY) if isinstance(message, dict) else None
    return found if isinstance(found, dict) else {}


def _login(text: object) -> Login | None:
    if not isinstance(text, str) or len(text) > MAX_LOGIN or not _is_text(text):
        return None
    username, colon, password = text.partition(":")
    return Login(username, password) if colon and username else None


def _is_text(text: str) -> bool:
    """JSON can also write halves of characters, which no registry could be sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
