"""READY images: list and lookup."""

import json
from typing import Annotated, Final

from aiohttp import web
from pydantic import Field

from services.gateway.auth.identity import Principal, principal_of
from services.gateway.cursors import After, Cursors
from services.gateway.directory import Entry
from services.gateway.handlers.v1.finding import BY_ID, Finder, ImagePath
from services.gateway.lookups import Lookups, etag_of
from services.gateway.pulls import Pulls
from services.gateway.repeated import RepeatedLookups
from services.gateway.stock.pack_ledger import PackLedger
from services.gateway.usage.service import Usage
from services.gateway.views import image_detail, image_view
from shared.api import API, ImageDetail, ImagePage, ImageView, SystemsView
from shared.errors import NotFoundError, UnknownSystemError
from shared.http.answers import answer, read_query
from shared.http.conditional import conditional
from shared.http.operation import operation
from shared.models import Strict, SystemName

CURSORS: Final = "images"


class ImagesQuery(Strict):
    """GET /images."""

    system: SystemName | None = None
    after: After = None
    """`next` of the page before."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class ImageQuery(Strict):
    """GET /images/…; counting who shares its layers takes longer than a lookup may."""

    sharing: bool = False


class ImageHandlers:
    """What can be used now."""

    def __init__(
        self,
        pulls: Pulls,
        lookups: Lookups,
        finder: Finder,
        *,
        repeated: RepeatedLookups,
        ledger: PackLedger,
        cursors: Cursors,
        usage: Usage,
    ) -> None:
        self._pulls = pulls
        self._lookups = lookups
        self._finder = finder
        self._repeated = repeated
        self._ledger = ledger
        self._cursors = cursors
        self._usage = usage

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{API}/systems", self.list_systems),
            web.get(f"{API}/images", self.list_images),
            web.get(f"{API}/images/{{system}}/{{type}}/{{reference:.+}}", self.lookup_image),
        ]

    def fast_routes(self) -> list[web.RouteDef]:
        """To be tried first: a reference that is percent-encoded needs no other pattern tried."""
        return [
            web.get(f"{API}/images/{{system}}/{{type}}/{{reference}}", self.lookup_image),
        ]

    @operation(gives={200: SystemsView})
    async def list_systems(self, _request: web.Request) -> web.Response:
        """The systems of this site: clusters, each with images of its own."""
        return answer(SystemsView(items=self._pulls.systems(None)))

    @operation(query=ImagesQuery, gives={200: ImagePage}, problems=(UnknownSystemError,), etag=True)
    async def list_images(self, request: web.Request) -> web.Response:
        """All images that are READY and that you may use, page by page."""
        query = read_query(request, ImagesQuery)
        systems = self._pulls.systems(query.system)
        after = None if query.after is None else self._cursors.open(CURSORS, query.after)
        found, more = await self._lookups.page(principal_of(request), systems, after, query.limit)
        cursor = self._cursors.seal(CURSORS, more) if more else None
        items = b",".join(made.body for _, made in found)
        body = b'{"items":[' + items + b'],"next":' + json.dumps(cursor).encode() + b"}"
        etags = [made.etag for _, made in found]
        return conditional(request, body, etag_of(json.dumps([etags, cursor]).encode()))

    @operation(
        path=ImagePath,
        query=ImageQuery,
        gives={200: ImageView | ImageDetail},
        problems=(NotFoundError, UnknownSystemError),
        etag=True,
    )
    async def lookup_image(self, request: web.Request) -> web.Response:
        """What a reference, or an image's id, stands for now.

        Your own image comes before the site's, and that before what others share with you. With
        `sharing`, the answer also tells what the image is made of.
        """
        principal = principal_of(request)
        entry, made = await self._finder.image(request, principal)
        self._usage.note("lookups", principal, entry)
        if request.query_string and read_query(request, ImageQuery).sharing:
            return await self._detailed(entry, principal)
        response = conditional(request, made.body, made.etag)
        if request.match_info["type"] != BY_ID and made.is_of(entry):
            self._repeated.keep(request, entry, response)
        return response

    async def _detailed(self, entry: Entry, principal: Principal) -> web.Response:
        record = await self._lookups.record(principal, entry)
        view = None if record is None else image_view(record)
        if record is None or record.current is None or view is None:
            raise NotFoundError(f"{entry.reference} is not READY on {entry.system} any more")
        packs = [share.pack for share in record.current.shares]
        others = self._ledger.others(record.current.image_id, packs)
        return answer(image_detail(view, record.current, others))
