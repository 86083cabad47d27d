"""The image that a path names, for whoever may have it; the same for lookups and for exports."""

from functools import lru_cache
from typing import Final, get_args

from aiohttp import web

from services.gateway.auth.identity import Principal
from services.gateway.directory import Entry
from services.gateway.images import not_ready
from services.gateway.lookups import Lookups, Rendered
from services.gateway.pulls import Pulls
from services.gateway.transitions import PullTarget
from shared.catalog.records import ImageType
from shared.errors import InvalidInputError, NotFoundError
from shared.models import Strict

ONLY_SYSTEM: Final = "_"
BY_ID: Final = "id"
_TARGETS: Final = 16_384
_TYPES: Final = frozenset(get_args(ImageType))


class ImagePath(Strict):
    """Which image. `system` may be _ where the site has only one; `type` may be id."""

    system: str
    type: str
    reference: str


class Finder:
    """Reads paths."""

    def __init__(self, pulls: Pulls, lookups: Lookups) -> None:
        self._pulls = pulls
        self._lookups = lookups
        self._target = lru_cache(_TARGETS)(pulls.target)

    async def image(self, request: web.Request, principal: Principal) -> tuple[Entry, Rendered]:
        """By its reference or by its id."""
        parts = request.match_info
        named, itype, reference = parts["system"], parts["type"], parts["reference"]
        system = None if named == ONLY_SYSTEM else named
        if itype == BY_ID:
            system = self._pulls.system(system)
            if found := await self._lookups.by_id(principal, system, reference):
                return found
            raise NotFoundError(f"there is no READY image with the id {reference} on {system}")
        if itype not in _TYPES:
            raise InvalidInputError(f"there is no type '{itype}'; write docker, custom, or {BY_ID}")
        target: PullTarget = self._target(system, itype, reference)
        found = self._lookups.at_hand(principal, target)
        if found or (found := await self._lookups.image(principal, target)):
            return found
        raise not_ready(target, await self._lookups.standing(principal, target))
