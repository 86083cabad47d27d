"""`dray whoami` and `dray token`."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cli import show
from cli.answers import read_time, reading
from cli.errors import RefusedError, UsageError
from cli.gateway import Gateway
from cli.http import Json
from cli.output import complain

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FIELD: Final = "seconds: "
_DURATION: Final = re.compile(r"(\d{1,7})([smhd]?)")


def whoami(gateway: Gateway, *, json: bool) -> int:
    raw = gateway.call("GET", "/whoami").body
    if json:
        show.document(raw)
        return 0
    with reading("who you are"):
        uid, gids = raw["uid"], raw["gids"]
        lines = {
            "name": str(raw["name"]),
            "uid": "none" if uid is None else str(uid),
            "groups": " ".join(str(gid) for gid in gids) or "none",
            "may": ", ".join(raw["scopes"]) or "nothing",
            "known by": str(raw["via"]),
        }
    for name, value in lines.items():
        print(f"{name:<9} {show.plain(value)}")
    return 0


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A token, and what people want to know of it."""

    token: str
    ends: datetime
    about: str
    raw: Json


def token(
    gateway: Gateway, scopes: list[str], service: str | None, expires: str, *, json: bool
) -> int:
    made = made_token(gateway, scopes, service, expires)
    if json:
        show.document(made.raw)
    else:
        # Alone on stdout, for $(…) and files; what people want to know stands beside it.
        print(show.plain(made.token))
        complain(show.plain(made.about))
    return 0


def made_token(gateway: Gateway, scopes: list[str], service: str | None, expires: str) -> MadeToken:
    body: Json = {"scopes": scopes, "seconds": seconds_of(expires)}
    if service is not None:
        body["service"] = service
    try:
        raw = gateway.call("POST", "/tokens", body=body).body
    except RefusedError as exc:
        # The gateway names its own field, which the user did not write.
        if exc.message.startswith(_FIELD):
            raise UsageError(f"--expires {expires}: {exc.message.removeprefix(_FIELD)}") from exc
        raise
    with reading("a token"):
        ends = read_time(raw["expires_at"])
        about = f"For {raw['name']}: {', '.join(raw['scopes'])}; until {ends:%Y-%m-%d %H:%M:%S %Z}"
        return MadeToken(str(raw["token"]), ends, about, raw)


def seconds_of(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise UsageError(f"--expires: {text!r} is no duration: write 90s, 30m, 12h or 1d")
    return int(match[1]) * _UNITS[match[2] or "s"]
