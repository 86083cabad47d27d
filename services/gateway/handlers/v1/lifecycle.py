"""Pins, expiry by hand, and quotas."""

from typing import Annotated, Final, get_args

from aiohttp import web
from pydantic import Field

from services.gateway.auth.identity import NotAllowedError, Scope, principal_of
from services.gateway.expiring import PullUnderWayError, last_use
from services.gateway.handlers.v1.finding import BY_ID, ONLY_SYSTEM, ImagePath
from services.gateway.images import is_image_id
from services.gateway.lifecycle import Lifecycle
from services.gateway.pulls import Pulls
from shared.api import (
    API,
    ExpiredView,
    ExpireRequest,
    QuotaLimits,
    QuotaStanding,
    QuotaView,
    ReferencesView,
    ReferenceView,
)
from shared.catalog.records import ImageRecord, ImageType
from shared.errors import InvalidInputError, NotFoundError, UnknownSystemError
from shared.http.answers import answer, read_body, read_query
from shared.http.operation import operation
from shared.imported import typed
from shared.models import Strict

EXPIRED_SHOWN: Final = 1000
_PROBLEMS: Final = (NotFoundError, UnknownSystemError, NotAllowedError)


class OwnerQuery(Strict):
    """Whose image is meant, if it is neither your own nor the site's; for operators."""

    owner: Annotated[int, Field(ge=0, lt=1 << 32)] | None = None


class LifecycleHandlers:
    """How long images stay."""

    def __init__(self, pulls: Pulls, lifecycle: Lifecycle) -> None:
        self._pulls = pulls
        self._expiry = lifecycle.expiry
        self._quotas = lifecycle.quotas

    def routes(self) -> list[web.RouteDef]:
        image = f"{API}/images/{{system}}/{{type}}/{{reference:.+}}"
        return [
            web.put(f"{image}/pin", self.pin_image),
            web.delete(f"{image}/pin", self.unpin_image),
            web.delete(image, self.expire_image),
            web.post(f"{API}/admin/expire", self.expire_due),
            web.get(f"{API}/quota", self.show_quota),
        ]

    @operation(
        path=ImagePath,
        query=OwnerQuery,
        gives={200: ReferencesView},
        problems=_PROBLEMS,
        needs="identity",
    )
    async def pin_image(self, request: web.Request) -> web.Response:
        """Pin an image: it does not expire by itself any more."""
        return await self._pin(request, pinned=True)

    @operation(
        path=ImagePath,
        query=OwnerQuery,
        gives={200: ReferencesView},
        problems=_PROBLEMS,
        needs="identity",
    )
    async def unpin_image(self, request: web.Request) -> web.Response:
        """Unpin an image: it expires again when nobody has used it for long."""
        return await self._pin(request, pinned=False)

    @operation(
        path=ImagePath,
        query=OwnerQuery,
        gives={202: ReferencesView},
        problems=(*_PROBLEMS, PullUnderWayError),
        needs="identity",
    )
    async def expire_image(self, request: web.Request) -> web.Response:
        """Expire an image at once, also a pinned one.

        The reference stands for nothing from now on. The image's file goes when no other
        reference stands for it and no job uses it. By id, this means every reference to the image
        that you may expire.
        """
        principal = principal_of(request)
        principal.require(Scope.PULL)
        system, reference, by_id = self._named(request)
        owner = read_query(request, OwnerQuery).owner
        if by_id:
            records = await self._expiry.expire_id(system, reference, principal)
        else:
            target = self._pulls.target(system, "docker", reference)
            records = await self._expiry.expire(target, principal, owner=owner)
        return answer(_references(records), 202)

    @operation(
        body=ExpireRequest,
        gives={200: ExpiredView},
        problems=(UnknownSystemError,),
        needs="admin",
    )
    async def expire_due(self, request: web.Request) -> web.Response:
        """Expire at once what nobody has used for long, by the settings as they are now."""
        principal_of(request).require(Scope.ADMIN)
        wanted = await read_body(request, ExpireRequest)
        done = await self._expiry.run_now(*self._pulls.systems(wanted.system))
        return answer(
            ExpiredView(
                seen=done.seen,
                expired=len(done.expired),
                held=done.held,
                items=_references(done.expired[:EXPIRED_SHOWN]).items,
            )
        )

    @operation(gives={200: QuotaView})
    async def show_quota(self, request: web.Request) -> web.Response:
        """How much of each system's room you use, and how much you may."""
        principal = principal_of(request)
        limits = self._quotas.limits
        standing = await self._quotas.standing(principal)
        return answer(
            QuotaView(
                limits=QuotaLimits(
                    images=limits.user_images,
                    bytes=limits.user_bytes,
                    pulls=limits.user_pulls_in_flight,
                ),
                pulls=self._quotas.pulls(principal),
                items=tuple(
                    QuotaStanding(
                        system=each.system,
                        images=each.images,
                        bytes=each.bytes,
                        system_bytes=each.system_bytes,
                        system_limit=each.system_limit,
                    )
                    for each in standing
                ),
            )
        )

    async def _pin(self, request: web.Request, *, pinned: bool) -> web.Response:
        principal = principal_of(request)
        principal.require(Scope.PULL)
        system, reference, by_id = self._named(request)
        owner = read_query(request, OwnerQuery).owner
        if by_id:
            records = await self._expiry.pin_id(system, reference, principal, pinned=pinned)
        else:
            target = self._pulls.target(system, "docker", reference)
            records = await self._expiry.pin(target, principal, pinned=pinned, owner=owner)
        return answer(_references(records))

    def _named(self, request: web.Request) -> tuple[str, str, bool]:
        """System and reference that a path names, and whether the reference is an id."""
        parts = request.match_info
        system = self._pulls.system(None if parts["system"] == ONLY_SYSTEM else parts["system"])
        itype, reference = parts["type"], parts["reference"]
        if itype == BY_ID:
            if not is_image_id(reference):
                raise NotFoundError(f"there is no image with the id {reference} on {system}")
            return system, reference, True
        if itype not in get_args(ImageType):
            raise InvalidInputError(f"there is no type '{itype}'; write docker, custom, or {BY_ID}")
        return system, typed(itype, reference), False


def _references(records: tuple[ImageRecord, ...]) -> ReferencesView:
    return ReferencesView(items=tuple(map(_reference, records)))


def _reference(record: ImageRecord) -> ReferenceView:
    return ReferenceView(
        system=record.system,
        type=record.itype,
        reference=record.reference,
        owner=record.owner,
        state=record.state,
        pinned=record.pinned,
        last_used=last_use(record),
        expires_at=record.expires_at,
    )
