"""`dray usage` and `dray quota`: who used what and when, and how much one has."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cli import show
from cli.answers import read_time, reading
from cli.errors import UsageError
from cli.gateway import Gateway
from cli.http import Json
from cli.tables import PLAIN, Column, Style, table

_AGO: Final = re.compile(r"(\d{1,6})([hdw])")
_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}
WHAT: Final = {
    "image": (Column("REFERENCE", worth=9, elastic=True), Column("SYSTEM", worth=2)),
    "user": (Column("USER", worth=9, elastic=True),),
    "hour": (Column("HOUR (UTC)", worth=9),),
    "day": (Column("DAY (UTC)", worth=9),),
}
COUNTS: Final = (
    Column("JOBS", worth=7, right=True),
    Column("LOOKUPS", worth=8, right=True),
    Column("PULLS", worth=6, right=True),
    Column("LAST", worth=5),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to know; times as they wrote them."""

    by: str
    since: str | None
    until: str | None
    user: str | None
    reference: str | None
    system: str | None
    limit: int


def usage(gateway: Gateway, wish: Wish, style: Style = PLAIN, *, json: bool) -> int:
    asked = {
        "by": wish.by,
        "since": instant("--since", wish.since),
        "until": instant("--until", wish.until),
        "user": wish.user,
        "reference": wish.reference,
        "system": wish.system,
    }
    found = list(gateway.pages("/usage", asked, most=wish.limit))
    if json:
        show.document({"items": found})
        return 0
    with reading("usage"):
        rows = [
            (
                *_what(wish.by, line),
                f"{line['jobs']:,}",
                f"{line['lookups']:,}",
                f"{line['pulls']:,}",
                show.age(read_time(line["last"])),
            )
            for line in found
        ]
    table((*WHAT[wish.by], *COUNTS), rows, _nothing(asked["since"], asked["until"]), style)
    return 0


def _nothing(since: str | None, until: str | None) -> str:
    begin = f"since {since}" if since else f"in the 7 days before {until or 'now'}"
    end = f" and until {until}" if since and until else ""
    return f"Nothing was used {begin}{end}; the last seconds are not counted yet."


def _what(by: str, line: Json) -> tuple[str, ...]:
    if by == "image":
        return str(line["reference"]), str(line["system"])
    return (str(line["user"] if by == "user" else line["period"]),)


def instant(option: str, text: str | None) -> str | None:
    """A time for the gateway: 7d ago, a day, or a moment of it."""
    if text is None:
        return None
    if match := _AGO.fullmatch(text):
        try:
            ago = timedelta(**{_UNITS[match[2]]: int(match[1])})
            return (datetime.now(UTC) - ago).isoformat(timespec="seconds")
        except OverflowError:
            raise UsageError(f"{option} {text}: that is before there was anything") from None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} {text!r}: write how long ago, as 12h, 7d or 4w, or a day or moment, as "
            "2026-11-21 or 2026-11-21T09:00"
        ) from None
    # What has no zone is meant as the clock on the wall says.
    return found.astimezone(UTC).isoformat(timespec="seconds")


def quota(gateway: Gateway, style: Style = PLAIN, *, json: bool) -> int:
    raw = gateway.call("GET", "/quota").body
    if json:
        show.document(raw)
        return 0
    with reading("the quota"):
        limits = raw["limits"]
        rows = [
            (
                str(each["system"]),
                _of(each["images"], limits["images"]),
                _of(each["bytes"], limits["bytes"], show.size),
                _of(each["system_bytes"], each["system_limit"], show.size),
            )
            for each in raw["items"]
        ]
        pulls = _of(raw["pulls"], limits["pulls"])
    columns = (
        Column("SYSTEM", worth=9),
        Column("YOUR IMAGES", worth=7, right=True),
        Column("YOUR BYTES", worth=8, right=True),
        Column("OF ALL USERS", worth=5, right=True),
    )
    if table(columns, rows, "There is no system that you may use.", style) and style == PLAIN:
        print(f"\nPulls of yours under way: {pulls}")
    return 0


def _of(have: int, most: int | None, said: Callable[[float], str] = "{:,}".format) -> str:
    return said(have) if most is None else f"{said(have)} of {said(most)}"
