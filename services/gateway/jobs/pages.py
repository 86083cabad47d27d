"""A page of jobs as it is answered, with where the next one begins."""

import json
from typing import Final

from services.gateway.auth.identity import Principal
from services.gateway.cursors import Cursors
from services.gateway.jobs.views import JobFilter, JobViews
from shared.api import JobPage
from shared.catalog.totals import Place

_CURSORS: Final = "jobs"


class JobPages:
    """Lists of jobs, page by page."""

    def __init__(self, views: JobViews, cursors: Cursors) -> None:
        self._views = views
        self._cursors = cursors

    async def page(
        self, principal: Principal, wanted: JobFilter, limit: int, after: str | None = None
    ) -> JobPage:
        beyond = None
        if after is not None:
            beyond = Place(*json.loads(self._cursors.open(_CURSORS, after)))
        jobs, following = await self._views.page(principal, wanted, beyond, limit)
        cursor = None
        if following is not None:
            cursor = self._cursors.seal(_CURSORS, json.dumps([following.value, following.key]))
        return JobPage(items=tuple(jobs), next=cursor)
