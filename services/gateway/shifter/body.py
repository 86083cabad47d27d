"""What clients of the wire send: the body of a pull, and the credentials of a login."""

import json
from typing import Any, Final

from pydantic import SecretStr, TypeAdapter, ValidationError

from services.gateway.auth.identity import Principal
from services.gateway.auth.locations import DEFAULT_LOCATION
from services.gateway.imports import Import
from shared.api import LoginRequest
from shared.api.imports import ImportPath
from shared.errors import InvalidInputError
from shared.events import Readers
from shared.formats import FORMATS, MAX_PATH
from shared.http.answers import invalid_input

MAX_ID: Final = (1 << 32) - 2
MAX_IDS: Final = 256
AUTO: Final = "auto"
_PULL: Final = 'send {"allowed_uids": "1000,4242", "allowed_gids": "50"}, or no body'
_IMPORT: Final = 'send {"filepath": "/PATH", "format": "auto"}'
_PATH: Final[TypeAdapter[str]] = TypeAdapter(ImportPath)


def parse_readers(body: bytes) -> Readers | None:
    """Who else may use a private image: `{"allowed_uids": "1000,4242", "allowed_gids": "50"}`.

    None where the client says nothing of it, which leaves it as it is.
    """
    return None if not body.strip() else _readers(_object(body, _PULL))


def parse_import(body: bytes) -> Import:
    """What to import: `{"filepath": "/home/ada/app.tar", "format": "docker-archive"}`, and who else
    may use it, as for a pull.
    """
    content = _object(body, _IMPORT)
    path, word = content.get("filepath"), content.get("format", AUTO)
    if path is None:
        raise InvalidInputError(f"the filepath is missing; {_IMPORT}")
    if word not in FORMATS and word != AUTO:
        raise InvalidInputError(
            f"there is no such format; write one of {', '.join(FORMATS)}, or {AUTO}"
        )
    try:
        path = _PATH.validate_python(path)
    except ValidationError:
        raise InvalidInputError(
            f"the filepath must be absolute, and of at most {MAX_PATH} characters"
        ) from None
    format_ = None if word == AUTO else word
    return Import(path=path, format=format_, readers=_readers(content))


def _object(body: bytes, example: str) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidInputError(f"the body is no JSON; {example}") from None
    if not isinstance(content, dict):
        raise InvalidInputError(f"the body is no JSON object; {example}")
    return content


def _readers(content: dict[str, Any]) -> Readers | None:
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
    return InvalidInputError(f"{what}; {_PULL}")


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
