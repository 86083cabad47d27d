"""The wire of Shifter's image gateway: what its client, its batch plugins and scripts speak.

Paths come with and without a slash at their end, references with and without percent signs. Who
sends no credential is the public, to which no route is an error: it just gets less.
"""

from typing import Annotated, Final

from aiohttp import web
from pydantic import Field

from services.gateway.auth.identity import (
    NotAllowedError,
    NotAuthenticatedError,
    Principal,
    Scope,
    principal_of,
)
from services.gateway.auth.locations import location
from services.gateway.images import is_image_id, not_ready
from services.gateway.imports import Imports
from services.gateway.lifecycle import Lifecycle
from services.gateway.logins import Logins
from services.gateway.lookups import Lookups
from services.gateway.pulls import Pulls
from services.gateway.repeated import RepeatedLookups
from services.gateway.shifter.answers import wire_answer
from services.gateway.shifter.asking import WirePulls
from services.gateway.shifter.body import brought_login, parse_import, parse_readers
from services.gateway.shifter.images import WireImages
from services.gateway.shifter.view import pull_view, queue_view, usage_view
from services.gateway.transitions import PullTarget
from services.gateway.usage.service import Usage
from shared.errors import InvalidInputError, NotFoundError
from shared.http.answers import read_query
from shared.models import Tolerant

DOCKER: Final = "docker"
CUSTOM: Final = "custom"
BY_ID: Final = "id"
ELSEWHERE: Final = {
    "local": "directories of a node, which no gateway knows",
}
QUEUE_LIMIT: Final = 1000


class UnknownTypeError(NotFoundError):
    """No image of this type is ever here."""

    code = "unknown_image_type"


class MetricsQuery(Tolerant):
    """GET /api/metrics/…/."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 10


class ShifterHandlers:
    """Thin: what a request means is found out here, what it does stands elsewhere."""

    def __init__(
        self,
        *,
        images: WireImages,
        asking: WirePulls,
        imports: Imports,
        pulls: Pulls,
        lookups: Lookups,
        repeated: RepeatedLookups,
        lifecycle: Lifecycle,
        logins: Logins,
        usage: Usage,
    ) -> None:
        self._images = images
        self._asking = asking
        self._imports = imports
        self._pulls = pulls
        self._lookups = lookups
        self._repeated = repeated
        self._lifecycle = lifecycle
        self._logins = logins
        self._usage = usage

    def routes(self) -> list[web.RouteDef]:
        of_system = (
            ("list", self.list_images),
            ("queue", self.show_queue),
            ("metrics", self.show_usage),
            ("autoexpire", self.expire_what_is_due),
        )
        of_image = (
            (web.get, "lookup", self.lookup),
            (web.post, "pull", self.pull),
            (web.get, "expire", self.expire),
            (web.post, "doimport", self.import_file),
        )
        routes = [web.post("/api/login/{system}/{location:.+}", self.log_in)]
        routes += [
            web.get(f"/api/{name}/{{system}}{end}", handler)
            for name, handler in of_system
            for end in ("", "/")
        ]
        # The last part of the pattern takes the slash at the end, too.
        routes += [
            method(f"/api/{name}/{{system}}/{{type}}/{{tag:.+}}", handler)
            for method, name, handler in of_image
        ]
        return routes

    async def list_images(self, request: web.Request) -> web.Response:
        systems = (self._system(request),)
        return wire_answer(await self._images.listed(principal_of(request), systems))

    async def lookup(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        image_id = _image_id(request)
        if image_id:
            system = self._system(request)
            found = await self._images.by_id(principal, system, image_id)
            if found is None:
                raise NotFoundError(f"there is no READY image with the id {image_id} on {system}")
        else:
            target = self._target(request)
            found = await self._images.named(principal, target)
            if found is None:
                raise not_ready(target, await self._lookups.standing(principal, target))
        entry, record = found
        self._usage.note("lookups", principal, entry)
        response = wire_answer(record)
        if not image_id and self._images.is_of(entry):
            self._repeated.keep(request, entry, response)
        return response

    async def pull(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        principal.require(Scope.PULL)
        target = self._target(request)
        if target.itype == CUSTOM:
            raise UnknownTypeError(
                "no registry has images of the type 'custom': they are imported from files, by "
                "`dray import FILE NAME` or doimport"
            )
        readers = parse_readers(await request.read())
        return wire_answer(pull_view(await self._asking.ask(principal, target, readers)))

    async def show_queue(self, request: web.Request) -> web.Response:
        entries = await self._lookups.queued(principal_of(request), (self._system(request),))
        return wire_answer({"list": [queue_view(each) for each in entries[:QUEUE_LIMIT]]})

    async def show_usage(self, request: web.Request) -> web.Response:
        limit = read_query(request, MetricsQuery).limit
        newest = await self._usage.latest(self._system(request), limit, principal_of(request))
        return wire_answer([usage_view(each) for each in reversed(newest)])

    async def expire(self, request: web.Request) -> web.Response:
        principal = principal_of(request)
        try:
            principal.require(Scope.PULL)
            await self._expire(request, principal)
        except (NotAllowedError, NotAuthenticatedError):
            return wire_answer({"status": False})
        except NotFoundError:
            if principal.uid is not None or principal.admin:
                raise
            return wire_answer({"status": False})
        return wire_answer({"status": True})

    async def expire_what_is_due(self, request: web.Request) -> web.Response:
        system = self._system(request)
        if not principal_of(request).admin:
            return wire_answer({"status": False})
        done = await self._lifecycle.expiry.run_now(system)
        gone = dict.fromkeys(record.leaving for record in done.expired if record.leaving)
        return wire_answer({"status": list(gone)})

    async def log_in(self, request: web.Request) -> web.Response:
        """Ours alone, for our own client: are these good, which came with the credential?"""
        principal = principal_of(request)
        principal.require(Scope.PULL)
        self._system(request)
        where = location(request.match_info["location"].rstrip("/"))
        wanted = brought_login(principal, where)
        await self._logins.log_in(principal, wanted)
        return wire_answer({"status": True})

    async def import_file(self, request: web.Request) -> web.Response:
        """The same request starts an import and then polls it, as for a pull."""
        principal = principal_of(request)
        target = self._target(request)
        if target.itype != CUSTOM:
            raise UnknownTypeError("what is imported has the type 'custom'")
        wanted = parse_import(await request.read())
        asked = await self._imports.asked(target, principal, wanted)
        return wire_answer(pull_view(await self._asking.ask_import(principal, asked)))

    async def _expire(self, request: web.Request, principal: Principal) -> None:
        expiry = self._lifecycle.expiry
        if image_id := _image_id(request):
            await expiry.expire_id(self._system(request), image_id, principal)
        else:
            await expiry.expire(self._target(request), principal)

    def _system(self, request: web.Request) -> str:
        return self._pulls.system(request.match_info["system"])

    def _target(self, request: web.Request) -> PullTarget:
        itype, system = request.match_info["type"], request.match_info["system"]
        if itype == DOCKER:
            return self._pulls.target(system, DOCKER, _tag(request))
        if itype == CUSTOM:
            return self._pulls.target(system, CUSTOM, _tag(request))
        if itype == BY_ID:
            raise InvalidInputError("an id names what is here already: pull it by its name")
        what = ELSEWHERE.get(itype, "nothing: write docker, custom, or id")
        raise UnknownTypeError(f"image not found: the type '{itype}' means {what}")


def _image_id(request: web.Request) -> str | None:
    """Also where an id is given as if it were a name, which Shifter's tools do."""
    tag = _tag(request)
    return tag if request.match_info["type"] == BY_ID or is_image_id(tag) else None


def _tag(request: web.Request) -> str:
    return request.match_info["tag"].rstrip("/")
