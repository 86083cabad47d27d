"""Which record somebody means by a reference who wants to change it: the one a lookup shows them.

What a lookup shows and is not theirs to change is refused by name, so that nobody is told of
another record, which they do not see, that it was changed.
"""

from contextlib import aclosing
from dataclasses import replace

from services.gateway.access import may_manage, may_see
from services.gateway.auth.identity import NotAllowedError, Principal
from services.gateway.images import Images
from services.gateway.transitions import PullTarget
from shared.catalog.interface import Catalog
from shared.catalog.records import ImageRecord
from shared.errors import InvalidInputError, NotFoundError

_OWNERS_NAMED = 10


class Meaning:
    """Of references, over one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._records = catalog.images
        self._images = Images(catalog)

    async def mine(self, target: PullTarget, principal: Principal) -> ImageRecord:
        """One's own image, also on its way, or the site's: of whom one may hear who may use it."""
        own, public = await self._own_and_public(target, principal.uid)
        if own is not None and (own.current is not None or own.state.in_flight):
            return own
        if public is not None and public.current is not None:
            return public
        if shared := await self._shared(target, principal, most=1):
            raise NotAllowedError(
                f"{_named(target)} belongs to uid {shared[0].owner}, who alone can say and see "
                "who else may use it"
            )
        if own is not None and own.private:
            return own
        raise NotFoundError(
            f"you have no image {target.reference} on {target.system}: `dray images` lists what "
            "there is; what was imported is called custom:NAME:TAG"
        )

    async def managed(
        self, target: PullTarget, principal: Principal, owner: int | None
    ) -> list[ImageRecord]:
        """What to expire or pin; `owner` names whose, for admins.

        An owner's image that turned out public is meant together with the site's.
        """
        own, public = await self._own_and_public(target, principal.uid if owner is None else owner)
        found: list[ImageRecord | None]
        if owner is not None and own is None:
            found = []
        elif owner is not None or (own is not None and own.current is not None):
            found = [own] if own is not None and own.private else [own, public]
        elif public is not None and public.current is not None:
            found = [public]
        elif shared := await self._shared(target, principal, most=_OWNERS_NAMED):
            found = [_only(shared, target) if principal.admin else shared[0]]
        else:
            found = [own] if own is not None and own.private else [own, public]
        return manageable([each for each in found if each is not None], principal, _named(target))

    async def _own_and_public(
        self, target: PullTarget, uid: int | None
    ) -> tuple[ImageRecord | None, ImageRecord | None]:
        own = None
        if uid is not None:
            own = await self._records.get(replace(target, owner=uid).key)
        return own, await self._records.get(replace(target, owner=None).key)

    async def _shared(
        self, target: PullTarget, principal: Principal, most: int
    ) -> list[ImageRecord]:
        """What others let one use, in the order in which a lookup would take it."""
        if principal.uid is None and not principal.admin:
            return []
        found: list[ImageRecord] = []
        where = {"reference": target.reference, "system": target.system}
        async with aclosing(self._images.usable(principal, where)) as usable:
            async for record in usable:
                found.append(record)
                if len(found) == most:
                    break
        return found


def manageable(records: list[ImageRecord], principal: Principal, named: str) -> list[ImageRecord]:
    """Those that one may change; an error if there is none."""
    seen = [record for record in records if may_see(principal, record)]
    if not seen:
        raise NotFoundError(f"there is no {named}: `dray images` lists what there is")
    managed = [record for record in seen if may_manage(principal, record)]
    if not managed:
        owner = seen[0].owner
        whose = "is not yours" if owner is None else f"belongs to uid {owner}"
        raise NotAllowedError(
            f"{named} {whose}: only who pulled it and the site's operators may do this"
        )
    return managed


def _only(shared: list[ImageRecord], target: PullTarget) -> ImageRecord:
    if len(shared) > 1:
        owners = ", ".join(f"{each.owner}" for each in shared)
        raise InvalidInputError(
            f"{_named(target)} belongs to several users (uid {owners}): say whose with --owner"
        )
    return shared[0]


def _named(target: PullTarget) -> str:
    return f"{target.reference} on {target.system}"
