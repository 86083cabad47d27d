"""How many have used an image: for operators, and for whose image it is."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from services.gateway.auth.identity import Principal
from services.gateway.directory import Entry
from shared.catalog.interface import Catalog
from shared.catalog.totals import Total, Totals

MOST_USES: Final = 20_000
"""Users of images of one page; beyond this nobody's number is told, since it would be too small."""
_BY: Final = ("image_id", "system", "uid", "user", "private", "owner")


class Users:
    """Counts users, as far as usage is kept; one question for all images of a page."""

    def __init__(self, catalog: Catalog) -> None:
        self._usage = catalog.usage

    async def of(self, principal: Principal, entries: Sequence[Entry]) -> dict[str, int]:
        """By the entries' keys, for those of which this principal may know it."""
        told = [entry for entry in entries if _may_know(principal, entry)]
        images = tuple(dict.fromkeys(entry.image_id for entry in told))
        if not images:
            return {}
        asked = Totals(by=_BY, where={"image_id": images}, limit=MOST_USES)
        totals = await self._usage.totals(asked)
        if len(totals) == MOST_USES:
            return {}
        uses: defaultdict[tuple[str | None, str | None], list[Total]] = defaultdict(list)
        for total in totals:
            uses[total.by[0], total.by[1]].append(total)
        return {
            entry.key: _users(principal, entry, uses[entry.image_id, entry.system])
            for entry in told
        }


def _may_know(principal: Principal, entry: Entry) -> bool:
    if principal.admin:
        return True
    owner = entry.brought_by if entry.owner is None else entry.owner
    return principal.uid is not None and principal.uid == owner


def _users(principal: Principal, entry: Entry, uses: Sequence[Total]) -> int:
    """Others may have the same image privately: that is for admins to know."""
    who = set()
    owner = None if entry.owner is None else str(entry.owner)
    for total in uses:
        _, _, uid, user, private, owned_by = total.by
        theirs = owned_by == owner if entry.private else private == "0"
        if principal.admin or theirs:
            who.add(uid or user)
    return len(who)
