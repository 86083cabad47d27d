"""Imports: images made of files that users have, under names that they choose.

What is imported belongs to its importer, as a private image does; a site may let some publish
theirs, which then belong to the site under a name that only they can use again.
"""

import asyncio
import grp
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.gateway.auth.identity import (
    NotAllowedError,
    NotAuthenticatedError,
    Principal,
    Scope,
)
from services.gateway.pulls import Pulls
from services.gateway.wishes import PullTarget, Request
from shared.catalog.records import ImageRecord
from shared.deadline import Deadline
from shared.errors import InvalidInputError
from shared.events import ImportedFile, Readers
from shared.events.pulls import MAX_GROUPS
from shared.formats import Format
from shared.imported import is_pinned
from shared.settings.lifecycle import ImportSettings

EVERYBODY: Final = "*"
_GROUP: Final = "@"
_SECONDS: Final = 10.0


class ImportNotAllowedError(NotAllowedError):
    """The site's settings do not let this user import."""

    code = "import_not_allowed"


@dataclass(frozen=True, slots=True)
class Import:
    """What somebody wants to import."""

    path: str
    format: Format | None = None
    image: str | None = None
    """Which one, of a file that holds several."""
    public: bool = False
    force: bool = False
    readers: Readers | None = None


class Imports:
    """The imports of one site."""

    def __init__(self, pulls: Pulls, rules: ImportSettings) -> None:
        self._pulls = pulls
        self._rules = rules

    async def request(
        self, target: PullTarget, principal: Principal, wanted: Import
    ) -> ImageRecord:
        """Begin an import, or join the same one that is under way."""
        return await self._pulls.begin(await self.asked(target, principal, wanted), principal)

    async def asked(self, target: PullTarget, principal: Principal, wanted: Import) -> Request:
        """What that is, if this user may ask for it."""
        principal.require(Scope.PULL)
        uid = _importer(principal)
        await self._check(principal, self._rules.allow, "imports.allow", "import files")
        if wanted.public:
            setting = "imports.allow_public"
            await self._check(principal, self._rules.allow_public, setting, "publish an import")
        if wanted.public and wanted.readers is not None:
            raise InvalidInputError(
                "a public import is for everybody: name users and groups, or make it public"
            )
        if is_pinned(target.reference):
            raise InvalidInputError("an import chooses a name and a tag; its digest it gets later")
        return Request(
            target=PullTarget(
                target.system, target.itype, target.reference, None if wanted.public else uid
            ),
            user=principal.name,
            force=wanted.force,
            uid=uid,
            readers=wanted.readers,
            file=ImportedFile(
                path=wanted.path,
                format=wanted.format,
                image=wanted.image,
                uid=uid,
                gids=tuple(sorted(principal.gids)[:MAX_GROUPS]),
            ),
        )

    async def _check(
        self, principal: Principal, allowed: tuple[str, ...], setting: str, doing: str
    ) -> None:
        names = {principal.name, str(principal.uid), EVERYBODY}
        if names.intersection(allowed):
            return
        groups = [name.removeprefix(_GROUP) for name in allowed if name.startswith(_GROUP)]
        async with Deadline.after(_SECONDS).bound("looking up the groups of imports.allow"):
            if groups and not principal.gids.isdisjoint(await asyncio.to_thread(_gids, groups)):
                return
        raise ImportNotAllowedError(
            f"{principal.name} may not {doing} here: the operators name who may, in {setting} of "
            "the settings"
        )


def _importer(principal: Principal) -> int:
    if principal.uid == 0:
        raise ImportNotAllowedError(
            "files are not imported with root's rights, which reach the site's secrets: import as "
            "an ordinary user who may read the file"
        )
    if principal.uid is not None:
        return principal.uid
    if principal.via == "nobody":
        raise NotAuthenticatedError(
            "an import needs to know who you are, and what you may read: use the gateway's socket "
            "on its own machine, MUNGE, or a token of yours (dray token)"
        )
    raise NotAllowedError(f"{principal.name} is no user, and so has no files to import")


def _gids(names: Iterable[str]) -> set[int]:
    """Of groups by name or number, as this machine knows them. Blocks."""
    found = set()
    for name in names:
        if name.isdigit():
            found.add(int(name))
            continue
        try:
            found.add(grp.getgrnam(name).gr_gid)
        except KeyError:  # a group that is not there has no members
            continue
    return found
