"""The last hours, in figures."""

from typing import Annotated

from aiohttp import web
from pydantic import Field

from services.gateway.auth.identity import Scope, principal_of
from services.gateway.lookups import etag_of
from services.gateway.past.charts import Charts
from shared.api import API, HistoryView
from shared.http.answers import read_query
from shared.http.conditional import conditional
from shared.http.operation import operation
from shared.models import Strict


class HistoryQuery(Strict):
    """GET /history."""

    hours: Annotated[int, Field(ge=1, le=48)] = 6


class HistoryHandlers:
    """What charts are drawn of."""

    def __init__(self, charts: Charts) -> None:
        self._charts = charts

    def routes(self) -> list[web.RouteDef]:
        return [web.get(f"{API}/history", self.show_history)]

    @operation(query=HistoryQuery, gives={200: HistoryView}, needs="admin", etag=True)
    async def show_history(self, request: web.Request) -> web.Response:
        """Figures of the last hours, minute by minute.

        They are kept for two days, in the catalog: the same at every gateway, and after a restart.
        """
        principal_of(request).require(Scope.ADMIN)
        body = await self._charts.body(read_query(request, HistoryQuery).hours)
        return conditional(request, body, etag_of(body))
