"""What a worker is asked to do for a record, told in an event: pure functions too."""

from services.gateway.access import arriving_readers
from shared import tracing
from shared.catalog.records import ImageRecord, PlacedImage
from shared.events import (
    Event,
    PlacementRequested,
    PullContext,
    PullRequested,
    RefreshRequested,
)
from shared.image.recipe import Recipe
from shared.states import State


def next_work(record: ImageRecord, platform: str, ticket: str | None) -> Event:
    """What is to be done next, as far as the record has come; `ticket` fetches its password."""
    if record.state is State.TRANSFER and record.recipe is not None:
        return placement_work(record, record.recipe, None)
    current = record.current
    # After a try that failed the check is over, whatever it was about to become.
    unseen = current is None or (record.file is not None and current.file is None)
    if current is None or unseen or not made_alike(current, record) or record.tries > 1:
        return pull_work(record, platform, None, ticket)
    return RefreshRequested(
        **_context(record, None),
        reference=record.reference,
        platform=platform,
        known_digest=current.reference_digest,
        ticket=ticket,
        file=record.file,
        known_file=current.file if record.file is not None else None,
    )


def pull_work(record: ImageRecord, platform: str, cause: Event | None, ticket: str | None) -> Event:
    """A converter's part: the image, whatever was there before."""
    return PullRequested(
        **_context(record, cause),
        reference=record.reference,
        platform=platform,
        options=record.pack,
        max_dead_share=record.max_dead_share,
        user=record.requested_by,
        ticket=ticket,
        file=record.file,
    )


def placement_work(record: ImageRecord, recipe: Recipe, cause: Event | None) -> Event:
    """A distributor's part."""
    return PlacementRequested(
        **_context(record, cause),
        system=record.system,
        recipe=recipe,
        reference=record.reference,
        readers=arriving_readers(record),
    )


def made_alike(current: PlacedImage, record: ImageRecord) -> bool:
    """Whether what is placed was made as the record wants it now."""
    return (current.pack, current.max_dead_share) == (record.pack, record.max_dead_share)


def _context(record: ImageRecord, cause: Event | None) -> PullContext:
    """Which attempt at which pull the work is for, and what led to it."""
    return PullContext(
        correlation_id=record.pull_id,
        causation_id=cause.id if cause else None,
        trace=tracing.current() or record.trace,
        key=record.key,
        attempt=record.attempt,
    )
