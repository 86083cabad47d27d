"""READY images: list and lookup."""

from typing import Annotated, get_args

from aiohttp import web
from pydantic import Field

from services.gateway.images import Images
from services.gateway.pulls import Pulls
from services.gateway.sharing import Sharing
from services.gateway.views import image_detail, image_view
from shared.api import API, ImagePage
from shared.catalog.records import ImageRecord, ImageType
from shared.errors import InvalidInputError
from shared.http.answers import answer, read_query
from shared.models import Strict, SystemName

ONLY_SYSTEM = "_"
BY_ID = "id"


class ImagesQuery(Strict):
    """GET /images."""

    system: SystemName | None = None
    after: Annotated[str, Field(max_length=1024)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class ImageQuery(Strict):
    """GET /images/…; counting who shares its layers takes longer than a lookup may."""

    sharing: bool = False


class ImageHandlers:
    """What can be used now."""

    def __init__(self, pulls: Pulls, images: Images, sharing: Sharing) -> None:
        self._pulls = pulls
        self._images = images
        self._sharing = sharing

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{API}/systems", self.list_systems),
            web.get(f"{API}/images", self.list_images),
            web.get(f"{API}/images/{{system}}/{{type}}/{{reference:.+}}", self.lookup_image),
        ]

    async def list_systems(self, _request: web.Request) -> web.Response:
        return web.json_response({"items": list(self._pulls.systems(None))})

    async def list_images(self, request: web.Request) -> web.Response:
        query = read_query(request, ImagesQuery)
        systems = self._pulls.systems(query.system)
        records, after = await self._images.page(systems, query.after, query.limit)
        views = (image_view(record) for record in records)
        return answer(ImagePage(items=tuple(view for view in views if view), next=after))

    async def lookup_image(self, request: web.Request) -> web.Response:
        query = read_query(request, ImageQuery)
        record = await self._found(request)
        view, current = image_view(record), record.current
        assert view is not None
        assert current is not None
        if not query.sharing:
            return answer(view)
        packs = [share.pack for share in current.shares]
        others = await self._sharing.others(current.image_id, packs)
        return answer(image_detail(view, current, others))

    async def _found(self, request: web.Request) -> ImageRecord:
        """The image that a path names, by its reference or by its id."""
        named, itype, reference = (
            request.match_info[part] for part in ("system", "type", "reference")
        )
        system = None if named == ONLY_SYSTEM else named
        if itype == BY_ID:
            return await self._images.by_id(self._pulls.system(system), reference)
        if itype not in get_args(ImageType):
            raise InvalidInputError(f"there is no image type '{itype}'; write docker, or {BY_ID}")
        return await self._images.lookup(self._pulls.target(system, "docker", reference))
