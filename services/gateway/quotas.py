"""Quotas: how much each user may have on a system, and how much a system may hold.

Counted in this gateway's memory, which is at most a second behind the catalog, and checked without
a lock: pulls that begin in the same moment may all pass, so a limit is exceeded by what they add,
which the limit of pulls under way bounds.
"""

from dataclasses import dataclass

from services.gateway.auth.identity import Principal
from services.gateway.feed import ChangeFeed
from services.gateway.holdings import Holdings, holder
from services.gateway.transitions import PullTarget
from shared.errors import DrayError
from shared.events import ImageConverted
from shared.settings.lifecycle import QuotaSettings


class QuotaExceededError(DrayError):
    """Nothing more may be held until something goes."""

    code = "quota_exceeded"
    status = 403


class TooManyPullsError(DrayError):
    """A user's pulls under way have to end before more may begin."""

    code = "too_many_pulls"
    status = 429
    retryable = True


@dataclass(frozen=True, slots=True)
class Standing:
    """What a user has on one system, and what the system holds."""

    system: str
    images: int
    bytes: int
    system_bytes: int
    system_limit: int | None


class Quotas:
    """The limits of one site, and who stands where."""

    def __init__(
        self, feed: ChangeFeed, limits: QuotaSettings, of_systems: dict[str, int | None]
    ) -> None:
        """`of_systems` are the systems with the bytes that each may hold, if it says so itself."""
        self.limits = limits
        self._feed = feed
        self._of_systems = of_systems
        self._holdings = Holdings(feed.directory)

    async def check(self, principal: Principal, target: PullTarget) -> None:
        """An error unless this user may begin to pull that."""
        uid, limits = principal.uid, self.limits
        if (limits.user_images, limits.user_pulls_in_flight) == (None, None):
            return
        if uid is None and principal.via != "nobody":
            return  # a service account
        await self._feed.fresh()
        known = self._feed.directory.get(target.key)
        if known is not None and known.state.in_flight:
            return  # it is joined
        under_way, most = self._holdings.pulls(uid), limits.user_pulls_in_flight
        if most is not None and under_way >= most:
            raise TooManyPullsError(
                f"{under_way} pulls of {'the public' if uid is None else 'yours'} are under way, "
                f"and {most} may be: wait for one to end (dray queue)"
            )
        if uid is None:
            return
        mine, most = self._holdings.user(target.system, uid), limits.user_images
        renewed = known is not None and known.image_id in mine.references
        if most is not None and mine.images >= most and not renewed:
            raise QuotaExceededError(
                f"you have {mine.images} images on {target.system}, and {most} may be: "
                f"remove some (dray rm)"
            )

    async def check_size(self, event: ImageConverted) -> None:
        """An error unless the image, whose size is known now, may be placed."""
        if not self._bounds_bytes():
            return
        await self._feed.fresh()
        entry = self._feed.directory.get(event.key)
        if entry is None:
            return
        size, image = event.recipe.size, event.recipe.image_id
        uid, most = holder(entry), self.limits.user_bytes
        if uid is not None and most is not None:
            mine = self._holdings.user(entry.system, uid)
            if mine.bytes_with(entry, image, size) > most:
                if size > most:
                    raise _never_fits(size, most, f"a user has on {entry.system}")
                raise QuotaExceededError(
                    f"this image has {size:,} bytes, your {mine.images} images on {entry.system} "
                    f"have {mine.bytes:,}, and {most:,} may be: remove some (dray rm), then pull "
                    "again"
                )
        most = self.system_limit(entry.system)
        if most is not None:
            held = self._holdings.system(entry.system)
            if held.bytes_with(entry, image, size) > most:
                if size > most:
                    raise _never_fits(size, most, f"{entry.system} holds")
                raise QuotaExceededError(
                    f"this image has {size:,} bytes, for which {entry.system} has no room left, "
                    f"where {most:,} may be: remove some of yours (dray rm), or ask the operators "
                    "to make room, then pull again"
                )

    async def standing(self, principal: Principal) -> list[Standing]:
        """Where a user stands, on each system."""
        await self._feed.fresh()
        return [self._standing(principal, system) for system in self._of_systems]

    def pulls(self, principal: Principal) -> int:
        return self._holdings.pulls(principal.uid)

    def system_limit(self, system: str) -> int | None:
        own = self._of_systems.get(system)
        return self.limits.system_bytes if own is None else own

    def _standing(self, principal: Principal, system: str) -> Standing:
        uid = principal.uid
        mine = None if uid is None else self._holdings.user(system, uid)
        return Standing(
            system=system,
            images=mine.images if mine else 0,
            bytes=mine.bytes if mine else 0,
            system_bytes=self._seen(principal, system),
            system_limit=self.system_limit(system),
        )

    def _seen(self, principal: Principal, system: str) -> int:
        """What the images have together that this one may know of; one more would show."""
        if principal.admin:
            return self._holdings.system(system).bytes
        entries = self._feed.directory.usable((system,), principal, None)
        return sum({entry.image_id: entry.size for entry in entries}.values())

    def _bounds_bytes(self) -> bool:
        limits = (self.limits.user_bytes, self.limits.system_bytes, *self._of_systems.values())
        return any(limit is not None for limit in limits)


def _never_fits(size: int, most: int, what: str) -> QuotaExceededError:
    return QuotaExceededError(
        f"this image has {size:,} bytes, and {most:,} may be all that {what}: it can never fit, "
        "whatever is removed; pull a smaller one, or ask the operators for more"
    )
