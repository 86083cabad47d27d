"""Pulls, imports and freshness checks: the converter's work."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.converter.conversion import Conversion, ImageOrder, named
from services.converter.examination import Examination
from services.converter.imports import ImportedSource, Imports
from services.converter.registries import Registries
from services.converter.registry.endpoint import Credentials
from services.converter.registry.errors import ImageLimitError
from services.converter.registry.platforms import parse_platform
from services.converter.sources.user import UserSource
from services.converter.tickets import TicketOffice, TicketSpentError
from shared.bus.interface import Bus
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import (
    MAX_EVENT_BYTES,
    Event,
    ImageChanged,
    ImageConverted,
    ImageUnchanged,
    ImportedFile,
    PullFailed,
    PullRequested,
    RefreshRequested,
)
from shared.image.recipe import Recipe
from shared.logging import get_logger
from shared.progress import ProgressReporter
from shared.reference import parse_reference

log = get_logger(__name__)

CHECK_SECONDS = 60.0
# A recipe travels in events, with room for what an event says beside it.
MAX_RECIPE_BYTES = MAX_EVENT_BYTES // 2


class Pulls:
    """Turns references into recipes, one attempt at a time for each."""

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        registries: Registries,
        conversion: Conversion,
        *,
        tickets: TicketOffice,
        imports: Imports,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._registries = registries
        self._conversion = conversion
        self._tickets = tickets
        self._imports = imports
        self._active: set[tuple[str, int]] = set()

    async def on_requested(self, event: PullRequested) -> None:
        attempt = (event.key, event.attempt)
        if attempt in self._active:
            log.info("pull_already_here")
            return
        self._active.add(attempt)
        try:
            reporter = ProgressReporter(
                self._bus,
                event,
                lease=self._settings.pull.lease,
                timeout=self._settings.bus.publish_timeout,
            )
            async with reporter.running():
                outcome = await self._outcome(event, reporter)
            if outcome is not None:
                await self._publish(outcome)
        finally:
            self._active.discard(attempt)

    async def on_refresh(self, event: RefreshRequested) -> None:
        deadline = Deadline.after(CHECK_SECONDS)
        try:
            if event.file is not None:
                await self._publish(await self._looked_at(event, event.file, deadline))
                return
            source = self._source(event)
            digest = await source.head_digest(deadline)
        except TicketSpentError:
            log.info("check_not_ours")
            return
        except DrayError as exc:
            await self._publish(PullFailed.because(event, exc))
            return
        if digest != event.known_digest:
            await self._publish(ImageChanged(**event.context, reference_digest=digest))
            return
        unchanged = ImageUnchanged(
            **event.context, reference_digest=digest, authenticated=source.authenticated
        )
        await self._publish(unchanged)

    async def _looked_at(
        self, event: RefreshRequested, file: ImportedFile, deadline: Deadline
    ) -> Event:
        now = await self._imports.identity(file, deadline)
        if now is not None and now == event.known_file:
            known = event.known_digest
            return ImageUnchanged(**event.context, reference_digest=known, authenticated=True)
        # What it holds by now is known when it has been read.
        digest = f"sha256:{hashlib.sha256(str(now).encode()).hexdigest()}"
        return ImageChanged(**event.context, reference_digest=digest)

    async def _outcome(self, event: PullRequested, reporter: ProgressReporter) -> Event | None:
        """What to tell the gateway; None if it has nothing to hear of this event."""
        deadline = Deadline.after(self._settings.converter.pull_timeout)
        try:
            async with self._opened(event, deadline) as source:
                recipe = await self._convert(event, source, reporter, deadline)
        except TicketSpentError:
            # Another worker has the attempt, or had it: its silence is what the lease is for.
            log.info("pull_not_ours")
            return None
        except Exception as exc:  # noqa: BLE001 - whatever it is, the user hears of it
            failure = _explained(exc, event)
            log.warning("pull_failed", code=failure.code, error=failure.message)
            return PullFailed.because(event, failure)
        return ImageConverted(
            **event.context, recipe=recipe, authenticated=source.authenticated, file=source.file
        )

    @asynccontextmanager
    async def _opened(
        self, event: PullRequested, deadline: Deadline
    ) -> AsyncIterator[UserSource | ImportedSource]:
        if event.file is None:
            yield self._source(event)
            return
        async with self._imports.source(event.file, deadline) as source:
            yield source

    def _source(self, event: PullRequested | RefreshRequested) -> UserSource:
        ticket = event.ticket

        async def fetch(deadline: Deadline) -> Credentials:
            assert ticket is not None
            return await self._tickets.credentials("pull", event.key, ticket, deadline)

        reference = parse_reference(event.reference)
        return UserSource(self._registries, reference, fetch if ticket is not None else None)

    async def _convert(
        self,
        event: PullRequested,
        source: UserSource | ImportedSource,
        reporter: ProgressReporter,
        deadline: Deadline,
    ) -> Recipe:
        order = ImageOrder(
            source=source,
            platform=parse_platform(event.platform),
            options=event.options,
            max_dead_share=event.max_dead_share,
            examiner=Examination(self._settings.admission, event, source),
        )
        recipe = await self._conversion.recipe(order, reporter, deadline)
        if len(recipe.model_dump_json().encode()) > MAX_RECIPE_BYTES:
            raise ImageLimitError(
                f"the config of {event.reference} is too large to be passed on: keep its "
                "environment and labels short"
            )
        return recipe

    async def _publish(self, event: Event) -> None:
        await self._bus.publish(event, Deadline.after(self._settings.bus.publish_timeout))


def _explained(error: Exception, event: PullRequested) -> DrayError:
    """What to tell the user."""
    known = named(error)
    if known is not None:
        return known
    # A fault of ours would come again at every redelivery: better the user hears now.
    log.error("pull_failed", exc_info=error)
    return DrayError(
        "the converter met an error of its own; tell the operator to look at its log "
        f"for pull {event.correlation_id}"
    )
