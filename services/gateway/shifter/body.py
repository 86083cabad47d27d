"""What clients of the wire send: the body of a pull, and the credentials of a login."""

import json
from typing import Any, Final

from pydantic import SecretStr, ValidationError

from services.gateway.auth.identity import Principal
from services.gateway.auth.locations import DEFAULT_LOCATION
from shared.api import LoginRequest
from shared.errors import InvalidInputError
from shared.events import Readers
from shared.http.answers import invalid_input

MAX_ID: Final = (1 << 32) - 2
MAX_IDS: Final = 256


def parse_readers(body: bytes) -> Readers | None:
    """Who else may use a private image: `{"allowed_uids": "1000,4242", "allowed_gids": "50"}`.

    None where the client says nothing of it, which leaves it as it is.
    """
    if not body.strip():
        return None
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise _wrong("the body is no JSON") from None
    if not isinstance(content, dict):
        raise _wrong("the body is no JSON object")
    uids, gids = (_ids(content, key) for key in ("allowed_uids", "allowed_gids"))
    return None if uids is None and gids is None else Readers(uids=uids or (), gids=gids or ())


def _ids(content: dict[str, Any], key: str) -> tuple[int, ...] | None:
    if key not in content:
        return None
    text = content[key]
    if not isinstance(text, str):
        raise _wrong(f"{key} is no text")
    found: dict[int, None] = {}  # each once, in their order
    for part in text.split(","):
        number = part.strip()
        if not number:
            continue
        if not (number.isascii() and number.isdigit()) or len(number) > 10:
            raise _wrong(f"in {key} there is something that is no number")
        if int(number) > MAX_ID:
            raise _wrong(f"{number} in {key} is no id of a user or group")
        found[int(number)] = None
    if len(found) > MAX_IDS:
        raise _wrong(f"{key} names more than {MAX_IDS}")
    return tuple(found)


def _wrong(what: str) -> InvalidInputError:
    return InvalidInputError(
        f'{what}; send {{"allowed_uids": "1000,4242", "allowed_gids": "50"}}, or no body'
    )


def brought_login(principal: Principal, where: str) -> LoginRequest:
    """What came along for a registry. The default is Docker Hub, as for a pull."""
    login = principal.logins.get(where)
    if login is None:
        raise InvalidInputError(f"no user name and password for {where} came with the credential")
    try:
        return LoginRequest(
            registry=None if where == DEFAULT_LOCATION else where,
            username=login.username,
            password=SecretStr(login.password),
        )
    except ValidationError as exc:
        raise invalid_input(exc) from None
