"""Reports of use, added up by the database; and the latest uses, as Shifter's clients ask for them.

Admins see everything. A user sees what was done by or with what is their own: their own use, and
that of their own private images; and of public images the totals, without names. So nobody learns
from any of it that somebody else's private image exists.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from services.gateway.auth.identity import Principal, Scope
from services.gateway.usage.counting import HOUR
from shared.api import UsageBy, UsageView
from shared.catalog.interface import Catalog
from shared.catalog.records import UsageRecord
from shared.catalog.totals import Between, Total, Totals, Wanted
from shared.errors import DrayError, InvalidInputError

MOST_LATEST: Final = 1000
AT_ONCE: Final = 2
"""Reports that one gateway has its database make; the next ones wait, but not too many."""
MOST_ASKING: Final = 32
_FIELDS: Final[dict[UsageBy, tuple[str, ...]]] = {
    "image": ("image_id", "reference", "system"),
    "user": ("user", "uid"),
    "hour": ("hour",),
    "day": ("hour",),
}
_SUMS: Final = ("lookups", "pulls", "jobs")
_DAY: Final = len("2026-11-21")
_PUBLIC: Final = {"private": ("0",)}


class TooManyReportsError(DrayError):
    """More reports are asked for than the database should be busy with."""

    code = "too_many_reports"
    status = 503
    retryable = True


@dataclass(frozen=True, slots=True)
class Report:
    """What somebody wants to know. `since` and `until` are in UTC."""

    by: UsageBy
    since: datetime
    until: datetime
    systems: tuple[str, ...]
    user: str | None = None
    """By name or uid."""
    reference: str | None = None


class Reports:
    """What the catalog knows of use, for those who may know it."""

    def __init__(self, catalog: Catalog) -> None:
        self._usage = catalog.usage
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._asking = 0

    async def page(
        self, principal: Principal, wanted: Report, offset: int, limit: int
    ) -> tuple[list[UsageView], bool]:
        """Lines from `offset` on, and whether there are more."""
        asked = _asked(principal, wanted)
        lines = await self._lines(replace(asked, offset=offset, limit=limit + 1))
        return lines[:limit], len(lines) > limit

    async def latest(self, system: str, limit: int, principal: Principal) -> list[UsageRecord]:
        """The documents that were used last, at most one for each hour, user and image.

        Admins see those of all users, others their own, the public none.
        """
        where = {"system": system}
        limit = min(limit, MOST_LATEST)
        if limit < 1:
            return []
        if not principal.admin:
            if principal.uid is None:
                return []
            where["uid"] = str(principal.uid)
        found = await self._usage.newest(UsageRecord, "last", where, limit=limit)
        return [record for _, record in found]

    async def _lines(self, asked: Totals) -> list[UsageView]:
        if self._asking >= MOST_ASKING:
            raise TooManyReportsError("many reports are being made already: ask again in a moment")
        self._asking += 1
        try:
            async with self._turns:
                totals = await self._usage.totals(asked)
        finally:
            self._asking -= 1
        return [_line(total, asked.by) for total in totals]


def _asked(principal: Principal, wanted: Report) -> Totals:
    if wanted.since >= wanted.until:
        raise InvalidInputError("since: this is not before until")
    where: dict[str, tuple[str | None, ...]] = {"system": wanted.systems}
    if wanted.reference is not None:
        where["reference"] = (wanted.reference,)
    either: tuple[Wanted, ...] = ()
    if principal.admin:
        if wanted.user is not None:
            either = ({"user": (wanted.user,)}, {"uid": (wanted.user,)})
    else:
        either = _visible(principal)
        if wanted.user is not None or wanted.by == "user":
            _only_own(principal, wanted.user)
            where |= _own(principal)
    return Totals(
        by=_FIELDS[wanted.by],
        sums=_SUMS,
        greatest="last",
        where=where,
        either=either,
        between=Between("hour", wanted.since.strftime(HOUR), _end(wanted.until)),
        largest_first=wanted.by in ("image", "user"),
        leading=_DAY if wanted.by == "day" else None,
        limit=1,
    )


def _visible(principal: Principal) -> tuple[Wanted, ...]:
    if principal.uid is None:
        return (_PUBLIC,)
    return _PUBLIC, {"uid": (str(principal.uid),)}, {"owner": (str(principal.uid),)}


def _only_own(principal: Principal, user: str | None) -> None:
    own = {principal.name} if principal.uid is None else {principal.name, str(principal.uid)}
    if principal.via == "nobody" or (user is not None and user not in own):
        principal.require(Scope.ADMIN)


def _own(principal: Principal) -> Wanted:
    if principal.uid is not None:
        return {"uid": (str(principal.uid),)}
    return {"uid": (None,), "user": (principal.name,)}


def _end(until: datetime) -> str:
    """Below this is every hour that begins before `until`."""
    hour = until.replace(minute=0, second=0, microsecond=0)
    return until.strftime(HOUR) if hour == until else f"{until.strftime(HOUR)}~"


def _line(total: Total, by: tuple[str, ...]) -> UsageView:
    names = {"hour": "period"}
    about = {names.get(field, field): value for field, value in zip(by, total.by, strict=True)}
    sums = dict(zip(_SUMS, total.sums, strict=True))
    return UsageView.model_validate({**about, **sums, "last": total.greatest})
