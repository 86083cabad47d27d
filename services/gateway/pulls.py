"""Pulls: requests of users and events of workers, carried into the catalog."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import datetime

from services.gateway.access import may_use, named_by_owner
from services.gateway.adoption import Adoption
from services.gateway.auth.identity import Login, Principal
from services.gateway.feed import ChangeFeed
from services.gateway.images import Images
from services.gateway.lifecycle import Lifecycle
from services.gateway.logins import Logins
from services.gateway.meaning import Meaning
from services.gateway.quotas import QuotaExceededError
from services.gateway.transitions import Changed, PullTarget, Request, Transitions
from services.gateway.watch import Watch
from shared.catalog.interface import Catalog, Change, Step
from shared.catalog.records import ImageRecord, ImageType
from shared.deadline import Deadline
from shared.errors import (
    CatalogUnavailableError,
    InvalidInputError,
    NotFoundError,
    UnknownSystemError,
)
from shared.events import (
    ImageChanged,
    ImageConverted,
    ImagePlaced,
    ImageUnchanged,
    PullEvent,
    PullFailed,
    PullProgressed,
    Readers,
)
from shared.imported import canonical, is_imported, parse_imported
from shared.logging import get_logger
from shared.models import utcnow
from shared.reference import parse_reference
from shared.states import IN_FLIGHT, State

log = get_logger(__name__)

REFRESH_ANSWER_SECONDS = 2.0

PullListener = Callable[[ImageRecord | None, ImageRecord], None]


class Pulls:
    """The pulls of one site."""

    def __init__(
        self,
        catalog: Catalog,
        feed: ChangeFeed,
        transitions: Transitions,
        *,
        logins: Logins,
        adoption: Adoption,
        lifecycle: Lifecycle,
        timeout: float,
    ) -> None:
        self._catalog = catalog
        self._images = Images(catalog)
        self._meaning = Meaning(catalog)
        self._feed = feed
        self._transitions = transitions
        self._logins = logins
        self._adoption = adoption
        self._lifecycle = lifecycle
        self._timeout = timeout
        self._watch = Watch(transitions.rules.lease / 2)
        self._listeners: list[PullListener] = []

    def listen(self, listener: PullListener) -> None:
        """Told of each change that this gateway made: the record before, and after it."""
        self._listeners.append(listener)

    def target(self, system: str | None, itype: ImageType, reference: str) -> PullTarget:
        """Check what a user wrote, and bring it into its one canonical form."""
        name = str(parse_imported(reference)) if itype == "custom" else canonical(reference)
        if is_imported(name):
            itype = "custom"
        return PullTarget(system=self.system(system), itype=itype, reference=name)

    def system(self, system: str | None) -> str:
        """The system that a user named, or the only one that there is."""
        known = self._transitions.systems
        if system is None:
            if len(known) != 1:
                raise InvalidInputError(
                    f"name a system (--system): this site has {', '.join(known)}"
                )
            system = next(iter(known))
        if system not in known:
            raise UnknownSystemError(
                f"there is no system '{system}' here; this site has {', '.join(known)}"
            )
        return system

    def systems(self, system: str | None) -> tuple[str, ...]:
        """The one that a user named, else all of the site's."""
        return tuple(self._transitions.systems) if system is None else (self.system(system),)

    async def own(self, target: PullTarget, principal: Principal) -> PullTarget:
        """Where this user's pull of it goes: to a record of their own if they have a login."""
        return (await self._own(target, principal))[0]

    async def request(
        self,
        target: PullTarget,
        principal: Principal,
        *,
        force: bool = False,
        readers: Readers | None = None,
    ) -> ImageRecord:
        """Start a pull, or join the one that is under way."""
        if target.itype == "custom":
            if force or readers is not None:
                raise InvalidInputError(
                    f"{target.reference} cannot be pulled: it names what is imported from a file, "
                    "by `dray import`; Docker Hub's image 'custom' is written docker:custom:TAG"
                )
            # No registry has it; but a job may name it beside others that have to come.
            record = await self._images.lookup(principal, target)
            self._lifecycle.used(record)
            return record
        target, login = await self._own(target, principal)
        ask = Request(
            target=target,
            user=principal.name,
            force=force,
            uid=principal.uid,
            login=None if login is None else self._logins.seal(login, target.key),
            readers=readers,
        )
        return await self.begin(ask, principal)

    async def begin(self, ask: Request, principal: Principal) -> ImageRecord:
        """What has been decided to be asked for: the record where it is under way."""
        target = ask.target
        await self._lifecycle.may_begin(principal, target)
        record = await self._change(
            target.key, lambda found: self._transitions.request(found, ask, utcnow())
        )
        if record is None:
            raise NotFoundError(f"there is no image {target.reference} on {target.system}")
        log.info("pull_requested", pull=record.pull_id, reference=target.reference, user=ask.user)
        self._lifecycle.used(record)
        if ask.readers is not None:
            await self._adoption.readers_named(record)
        if record.state.in_flight and record.current is not None:
            return await self._settled(record, Deadline.after(REFRESH_ANSWER_SECONDS))
        return record

    async def mine(self, target: PullTarget, principal: Principal) -> ImageRecord:
        """Of whom one may hear who may use it: one's own image, or the site's."""
        return await self._meaning.mine(target, principal)

    async def name_readers(
        self, target: PullTarget, principal: Principal, readers: Readers
    ) -> ImageRecord:
        """Who may use an image of this user's own, from now on."""
        record = await self.mine(target, principal)
        if record.owner is None:
            return record

        def step(found: ImageRecord | None) -> Changed:
            named = None if found is None else named_by_owner(found, readers)
            return None if named is None or named == found else Change(named)

        record = await self._change(record.key, step) or record
        await self._adoption.readers_named(record)
        return record

    async def get(self, pull_id: str, principal: Principal) -> ImageRecord:
        found = await self._catalog.images.find({"pull_id": pull_id}, limit=1)
        if not found or not may_use(principal, found[0]):
            raise NotFoundError(
                f"there is no pull {pull_id}; a newer pull of the same image may have taken its "
                "place: look the image up by its reference"
            )
        return found[0]

    async def queue(self, systems: Sequence[str], limit: int) -> list[ImageRecord]:
        """What is under way and what failed of late, the newest request first."""
        found: list[ImageRecord] = []
        # However many have failed, they never crowd out what is under way.
        for states in (IN_FLIGHT, (State.FAILURE,)):
            where = {"system": list(systems), "state": [state.value for state in states]}
            found += await self._catalog.images.find(where, limit=limit)
        return sorted(found, key=lambda record: record.requested_at, reverse=True)

    async def overdue(self, limit: int) -> int:
        """Deal with pulls whose time has run out; with how many that went well."""
        due = await self._catalog.images.due(utcnow(), limit)
        settled = self._watch.settled(due)
        return sum([await self._taken_up(record, self._overdue(record)) for record in settled])

    async def restart_interrupted(self) -> None:
        """After the start of a bus that forgets: issue again whatever was in flight."""
        after: str | None = None
        states = [state.value for state in IN_FLIGHT]
        while page := await self._catalog.images.find({"state": states}, after=after, limit=200):
            for record in page:
                step = self._step(record, self._transitions.interrupted)
                await self._taken_up(record, step)
            after = page[-1].key

    async def _step(
        self, record: ImageRecord, transition: Callable[[ImageRecord | None, datetime], Changed]
    ) -> None:
        log.info("pull_due", pull=record.pull_id, state=record.state)
        await self._change(record.key, lambda found: transition(found, utcnow()))

    async def _overdue(self, record: ImageRecord) -> None:
        if record.state.in_flight or record.state is State.FAILURE:
            await self._step(record, self._transitions.gone_quiet)
        else:
            await self._lifecycle.overdue(record)

    async def _taken_up(self, record: ImageRecord, work: Awaitable[None]) -> bool:
        """False: there is a fault with this one, which must not keep the others waiting."""
        try:
            await work
        except CatalogUnavailableError:
            raise
        except Exception:
            log.exception("pull_not_taken_up", pull=record.pull_id)
            return False
        return True

    async def on_progressed(self, event: PullProgressed) -> None:
        with suppress(CatalogUnavailableError):  # the next one says more
            await self._apply(event, lambda r: self._transitions.progressed(r, event, utcnow()))

    async def on_unchanged(self, event: ImageUnchanged) -> None:
        before = await self._catalog.images.get(event.key)
        record = await self._apply(event, lambda r: self._transitions.unchanged(r, event, utcnow()))
        await self._adoption.ended(before, record)

    async def on_changed(self, event: ImageChanged) -> None:
        await self._apply(event, lambda r: self._transitions.changed(r, event, utcnow()))

    async def on_converted(self, event: ImageConverted) -> None:
        try:
            await self._lifecycle.may_be_placed(event)
        except QuotaExceededError as exc:
            refused = PullFailed.because(event, exc)
            log.warning("pull_refused", code=refused.code, error=refused.message)
            await self._apply(event, lambda r: self._transitions.refused(r, refused, utcnow()))
            return
        await self._apply(event, lambda r: self._transitions.converted(r, event, utcnow()))

    async def on_placed(self, event: ImagePlaced) -> None:
        before = await self._catalog.images.get(event.key)
        await self._adoption.placing(before, event)
        await self._lifecycle.placing(before, event)
        record = await self._apply(event, lambda r: self._transitions.placed(r, event, utcnow()))
        await self._adoption.ended(before, record)
        await self._lifecycle.was_placed(event)

    async def on_failed(self, event: PullFailed) -> None:
        log.warning("pull_failed", code=event.code, error=event.message)
        await self._apply(event, lambda r: self._transitions.failed(r, event, utcnow()))

    async def _apply(
        self, event: PullEvent, transition: Callable[[ImageRecord | None], Changed]
    ) -> ImageRecord | None:
        record = await self._change(event.key, transition)
        if record is not None and event.type != "pull.progressed":
            log.info("pull_state", state=record.state, attempt=record.attempt)
        return record

    async def _own(
        self, target: PullTarget, principal: Principal
    ) -> tuple[PullTarget, Login | None]:
        if principal.uid is None or target.itype == "custom":
            return target, None
        registry = parse_reference(target.reference).registry
        login = await self._logins.login_for(principal, registry)
        return target if login is None else replace(target, owner=principal.uid), login

    async def _change(self, key: str, step: Step[ImageRecord]) -> ImageRecord | None:
        before: ImageRecord | None = None

        def seeing(found: ImageRecord | None) -> Changed:
            nonlocal before
            before = found
            return step(found)

        after = await self._catalog.images.change(key, seeing, Deadline.after(self._timeout))
        if after is not None and (before is None or after.version != before.version):
            for listener in self._listeners:
                listener(before, after)
        return after

    async def _settled(self, record: ImageRecord, deadline: Deadline) -> ImageRecord:
        """Wait a moment for a freshness check, so that an unchanged image is answered at once."""
        latest = record
        async with aclosing(self._feed.follow(record.key, deadline)) as versions:
            async for latest in versions:
                if latest.state is not State.INIT or latest.pull_id != record.pull_id:
                    break
        return latest
