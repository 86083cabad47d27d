"""Usage: lookups, pulls and jobs, added up."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated

from aiohttp import web
from pydantic import AfterValidator, Field, StringConstraints

from services.gateway.auth.identity import NotAllowedError, principal_of
from services.gateway.cursors import After, Cursors
from services.gateway.pulls import Pulls
from services.gateway.usage.report import Report, TooManyReportsError
from services.gateway.usage.service import Usage
from shared.api import API, UsageBy, UsagePage
from shared.errors import InvalidInputError, UnknownSystemError
from shared.http.answers import answer, read_query
from shared.http.operation import operation
from shared.models import Strict, SystemName, utcnow

USUALLY = timedelta(days=7)
LONGEST = timedelta(days=3660)
USAGE = "usage"


def _in_utc(value: datetime) -> datetime:
    """Years that leave room to count in; without a zone, UTC is meant."""
    if not 2000 <= value.year <= 2999:
        message = "write a time such as 2026-11-21 or 2026-11-21T09:00:00Z"
        raise ValueError(message)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Time = Annotated[datetime, AfterValidator(_in_utc)]


class UsageQuery(Strict):
    """GET /usage: by default, of the last 7 days, by image. Counted are whole hours."""

    system: SystemName | None = None
    user: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    """By name or uid."""
    reference: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    since: Time | None = None
    until: Time | None = None
    by: UsageBy = "image"
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: After = None


class UsageHandlers:
    """What was used."""

    def __init__(self, usage: Usage, pulls: Pulls, cursors: Cursors) -> None:
        self._usage = usage
        self._pulls = pulls
        self._cursors = cursors

    def routes(self) -> list[web.RouteDef]:
        return [web.get(f"{API}/usage", self.show_usage)]

    @operation(
        query=UsageQuery,
        gives={200: UsagePage},
        problems=(UnknownSystemError, NotAllowedError, TooManyReportsError),
    )
    async def show_usage(self, request: web.Request) -> web.Response:
        """Lookups, pulls and jobs, by image, user, hour or day.

        Admins see all of it. A user sees their own use, that of their own private images, and of
        public images the totals of everybody; the public sees these totals.
        """
        query = read_query(request, UsageQuery)
        offset, until = self._begun(query)
        since = query.since or until - USUALLY
        if until - since > LONGEST:
            raise InvalidInputError(f"since: this is more than {LONGEST.days} days before until")
        report = Report(
            by=query.by,
            since=since,
            until=until,
            systems=self._pulls.systems(query.system),
            user=query.user,
            reference=None if query.reference is None else self._canonical(query.reference),
        )
        lines, more = await self._usage.report(principal_of(request), report, offset, query.limit)
        page = UsagePage(
            by=query.by,
            since=since,
            until=until,
            items=tuple(lines),
            next=self._next(offset + query.limit, until) if more else None,
        )
        return answer(page)

    def _canonical(self, reference: str) -> str:
        [system, *_] = self._pulls.systems(None)
        return self._pulls.target(system, "docker", reference).reference

    def _begun(self, query: UsageQuery) -> tuple[int, datetime]:
        """Where the page begins, and the end of the time that the first page was about.

        By number, not by value: what is sorted by use moves while it is used, either way.
        """
        if query.after is None:
            return 0, query.until or utcnow()
        offset, until = json.loads(self._cursors.open(USAGE, query.after))
        return int(offset), datetime.fromisoformat(until)

    def _next(self, offset: int, until: datetime) -> str:
        return self._cursors.seal(USAGE, json.dumps([offset, until.isoformat()]))
