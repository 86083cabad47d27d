"""READY images as a table: searched, ordered, and with what they cost and who needs them."""

import json
from typing import Annotated, Final

from aiohttp import web
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from services.gateway.auth.identity import Principal, principal_of
from services.gateway.cursors import After, Cursors, InvalidCursorError
from services.gateway.directory import Entry
from services.gateway.expiring import last_use
from services.gateway.pulls import Pulls
from services.gateway.stock.image_table import (
    ImageTables,
    Order,
    Sort,
    Spot,
    TooManyTablesError,
    Wanted,
)
from services.gateway.usage.users import Users
from shared.api import API, ImageRow, ImageTable
from shared.errors import UnknownSystemError
from shared.http.answers import answer, read_query
from shared.http.operation import operation
from shared.models import Strict, SystemName

CURSORS: Final = "image-table"
_PLACE: Final = TypeAdapter(tuple[Sort, Order, float | str, str])


class TableQuery(Strict):
    """GET /images/table. `q` is part of a reference, in any case, or the beginning of an id."""

    system: SystemName | None = None
    q: Annotated[str, StringConstraints(max_length=256)] = ""
    sort: Sort = "size"
    order: Order = "desc"
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    after: After = None
    """`next` of the page before, of the same sort and order."""


class TableHandlers:
    """All that one may see, in whichever order."""

    def __init__(self, tables: ImageTables, users: Users, pulls: Pulls, cursors: Cursors) -> None:
        self._tables = tables
        self._users = users
        self._pulls = pulls
        self._cursors = cursors

    def routes(self) -> list[web.RouteDef]:
        return [web.get(f"{API}/images/table", self.list_image_table)]

    @operation(
        query=TableQuery,
        gives={200: ImageTable},
        problems=(UnknownSystemError, TooManyTablesError),
    )
    async def list_image_table(self, request: web.Request) -> web.Response:
        """Images that are READY and that you may use, in an order of your choice.

        What an image shares is what it has in common with other public images; admins are told of
        all images. How many have used it is told to admins and to whose image it is.
        """
        query = read_query(request, TableQuery)
        principal = principal_of(request)
        wanted = Wanted(
            systems=self._pulls.systems(query.system),
            q=query.q.strip().lower(),
            sort=query.sort,
            descending=query.order == "desc",
            beyond=self._begun(query),
            limit=query.limit,
        )
        page = await self._tables.page(principal, wanted)
        users = await self._users.of(principal, page.entries)
        table = ImageTable(
            items=tuple(self._row(principal, each, users.get(each.key)) for each in page.entries),
            total=page.total,
            bytes=page.bytes,
            next=None if page.last is None else self._next(query, page.last),
        )
        return answer(table)

    def _row(self, principal: Principal, entry: Entry, users: int | None) -> ImageRow:
        return ImageRow(
            id=entry.image_id or "",
            system=entry.system,
            type=entry.itype,
            reference=entry.reference,
            size=entry.size,
            shared_bytes=self._tables.shared_bytes(principal, entry),
            layers=0 if entry.made is None else entry.made.layers,
            users=users,
            last_used=last_use(entry),
            ready_at=entry.ready_at or entry.last_pull,
            expires_at=entry.expires_at,
            pinned=entry.pinned,
            private=entry.private,
            owner=entry.owner if entry.private else None,
        )

    def _begun(self, query: TableQuery) -> Spot | None:
        if query.after is None:
            return None
        try:
            place = _PLACE.validate_json(self._cursors.open(CURSORS, query.after))
        except ValidationError:
            place = None
        if place is None or place[:2] != (query.sort, query.order):
            raise InvalidCursorError("this cursor is of another order: begin without one")
        return Spot(*place[2:])

    def _next(self, query: TableQuery, last: Spot) -> str:
        place = json.dumps([query.sort, query.order, *last], ensure_ascii=False)
        return self._cursors.seal(CURSORS, place)
