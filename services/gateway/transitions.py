"""The state machine of a pull, as pure functions from a record to a change.

Each returns None where the record already says otherwise: a doubled, late or reordered event, or
one of an older attempt. Nothing here waits, reads a clock of its own or touches a database.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.gateway.access import named_by_owner
from services.gateway.expiring import dismissed, dropped, lasting
from services.gateway.freshness import is_fresh
from services.gateway.placed import placed_image
from services.gateway.steps import moved
from services.gateway.tickets import issued
from services.gateway.wishes import PullTarget, Request, begun, check_name_free
from services.gateway.work import next_work, placement_work, pull_work
from shared.catalog.interface import Change
from shared.catalog.records import (
    Failure,
    ImageRecord,
    Progress,
)
from shared.events import (
    Event,
    ImageChanged,
    ImageConverted,
    ImagePlaced,
    ImageUnchanged,
    PullEvent,
    PullFailed,
    PullProgressed,
)
from shared.settings.gateway import PullSettings
from shared.settings.site import SystemSettings
from shared.states import CONVERTING, State

__all__ = ["Changed", "PullTarget", "Request", "Transitions"]

Changed = Change[ImageRecord] | None

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
FAILURE_SHOWN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Transitions:
    """The rules of one site."""

    rules: PullSettings
    systems: Mapping[str, SystemSettings]

    def request(self, record: ImageRecord | None, ask: Request, now: datetime) -> Changed:
        """Somebody asks for an image. A pull that is under way is joined: no change."""
        check_name_free(record, ask)
        if record is not None and record.state.in_flight:
            named = named_by_owner(record, ask.readers)
            return Change(named) if named != record else None
        fresh = begun(record, ask, self.systems, now, self._lease(now))
        fresh_enough = is_fresh(fresh, record, now, self.rules.fresh_for)
        if record is not None and fresh_enough and not ask.force:
            named = named_by_owner(record, ask.readers)
            return Change(named) if named != record else None
        return self._asking(fresh, anew=ask.force)

    def progressed(
        self, record: ImageRecord | None, event: PullProgressed, now: datetime
    ) -> Changed:
        """A worker is alive. State and bytes only move forward; the lease is renewed anyway."""
        if record is None or not _about(record, event) or not event.stage.in_flight:
            return None
        if (event.stage is State.TRANSFER) != (record.state is State.TRANSFER):
            return None  # entering and leaving TRANSFER is told by other events
        changes: dict[str, object] = {"due_at": self._lease(now), "begun": True}
        seen = record.progress
        behind = event.stage.rank < record.state.rank or (
            seen is not None and seen.stage is event.stage and event.done < seen.done
        )
        if behind:
            return Change(record.but(**changes))
        changes["progress"] = Progress(
            stage=event.stage,
            done=event.done,
            total=event.total,
            rate=event.rate,
            layers=event.layers,
            waiting=event.waiting,
        )
        return Change(moved(record, event.stage, now, **changes))

    def unchanged(
        self, record: ImageRecord | None, event: ImageUnchanged, now: datetime
    ) -> Changed:
        """The registry still has what is placed: READY at once."""
        if record is None or not _about(record, event) or record.state not in CONVERTING:
            return None
        if record.current is None:  # lost since it was asked about
            return self.changed(record, event, now)
        if record.current.reference_digest != event.reference_digest:
            return None
        private = record.owner is not None and event.authenticated
        confirmed = {"last_pull": now, "checked_at": now, "private": private}
        return Change(self._ended(record, State.READY, now, **confirmed))

    def changed(
        self, record: ImageRecord | None, event: ImageChanged | ImageUnchanged, now: datetime
    ) -> Changed:
        """The reference has moved: what was a check becomes a pull, of the same attempt."""
        if record is None or not _about(record, event) or record.state is not State.INIT:
            return None
        return self._asking(record.but(due_at=self._lease(now)), event, anew=True)

    def converted(
        self, record: ImageRecord | None, event: ImageConverted, now: datetime
    ) -> Changed:
        """All packs are in the store: place the image."""
        if record is None or not _about(record, event) or record.state not in CONVERTING:
            return None
        waiting = moved(
            record,
            State.TRANSFER,
            now,
            waiting_since=now,
            begun=False,
            recipe=event.recipe,
            file_identity=event.file,
            arrives_public=record.owner is not None and not event.authenticated,
            progress=Progress(stage=State.TRANSFER, total=event.recipe.size),
            due_at=self._lease(now),
        )
        return Change(waiting, (placement_work(waiting, event.recipe, event),))

    def placed(self, record: ImageRecord | None, event: ImagePlaced, now: datetime) -> Changed:
        """The image stands on the system's file system: usable from now on."""
        if record is None or not _about(record, event) or record.state is not State.TRANSFER:
            return None
        recipe = record.recipe
        if recipe is None or recipe.image_id != event.image_id:
            return None
        current = placed_image(record, recipe, event, now)
        confirmed = {"last_pull": now, "checked_at": now}
        private = record.private and not record.arrives_public
        stands = {"current": current, "image_id": current.image_id, "private": private}
        ended = self._ended(record, State.READY, now, **stands, **confirmed)
        return Change(ended, dropped(record, ended))

    def failed(self, record: ImageRecord | None, event: PullFailed, now: datetime) -> Changed:
        """A worker gave up. What may pass by itself is tried again after a pause."""
        if record is None or not _about(record, event):
            return None
        if event.retryable and record.tries < self.rules.max_tries:
            pause = min(FIRST_PAUSE_SECONDS * 2 ** (record.tries - 1), LONGEST_PAUSE_SECONDS)
            # No event: the sweep issues the request when the pause is over.
            return Change(
                moved(
                    record,
                    State.INIT,
                    now,
                    attempt=record.attempt + 1,
                    tries=record.tries + 1,
                    progress=None,
                    recipe=None,
                    waiting_since=now,
                    begun=False,
                    failure=Failure(code=event.code, message=event.message),
                    due_at=now + timedelta(seconds=pause),
                )
            )
        return self._failure(record, event.code, event.message, now)

    def refused(self, record: ImageRecord | None, event: PullFailed, now: datetime) -> Changed:
        """What was converted may not be placed; where it may already, the word is a doubled one."""
        if record is None or record.state not in CONVERTING:
            return None
        return self.failed(record, event, now)

    def gone_quiet(self, record: ImageRecord | None, now: datetime) -> Changed:
        """The lease ran out: nobody has spoken of this pull for too long."""
        if record is None or record.due_at is None or record.due_at > now:
            return None
        if not record.state.in_flight and record.state is not State.FAILURE:
            return None  # it has ended meanwhile; when it expires is not decided here
        if record.state is State.FAILURE:
            # No news any more. What was placed before is usable all the while.
            if record.current is None:
                return dismissed(record, now)
            return Change(self._ended(record, State.READY, now))
        again = self._taken_up_again(record, now)
        if again is not None:
            return again
        message = (
            f"no word from a worker for {self.rules.lease:g} s in state {record.state}, "
            f"{record.tries} times over; pull again, and if it stays so, have the operator look "
            f"at the converter's and distributor's logs for pull {record.pull_id}"
        )
        return self._failure(record, "worker_lost", message, now)

    def interrupted(self, record: ImageRecord | None, now: datetime) -> Changed:
        """A bus that forgets was restarted: whatever was in flight is nobody's work now."""
        if record is None or not record.state.in_flight:
            return None
        again = self._taken_up_again(record, now)
        if again is not None:
            return again
        # Perhaps it is this very image that brings the process down: not for ever.
        message = (
            f"Dray was restarted {record.tries} times while it worked on this pull; pull again, "
            "and if it stays so, have the operator find out why it goes down"
        )
        return self._failure(record, "interrupted", message, now)

    def _taken_up_again(self, record: ImageRecord, now: datetime) -> Changed:
        """What can be done for a pull that nobody works on; None: it had all its tries."""
        if record.system not in self.systems:
            return self._no_system(record, now)
        if not record.begun:
            return self._still_waiting(record, now)
        if record.tries < self.rules.max_tries:
            return self._again(record, now)
        return None

    def _still_waiting(self, record: ImageRecord, now: datetime) -> Changed:
        """No worker has taken it up yet, which is no loss where the queue is long."""
        waited = (now - record.waiting_since).total_seconds()
        worker = "distributor" if record.state is State.TRANSFER else "converter"
        if waited >= self.rules.queue_timeout:
            message = (
                f"no {worker} took this pull up within {self.rules.queue_timeout:g} s; ask the "
                f"operator whether {worker}s are running and how long their queue is"
            )
            return self._failure(record, f"no_{worker}", message, now)
        # Ask again ever more rarely: each request that is not lost is one more in the queue.
        again = record.but(due_at=now + timedelta(seconds=max(self.rules.lease, waited)))
        return self._asking(again)

    def _no_system(self, record: ImageRecord, now: datetime) -> Change[ImageRecord]:
        message = f"the settings of this site no longer have a system '{record.system}'"
        return self._failure(record, "unknown_system", message, now)

    def _again(self, record: ImageRecord, now: datetime) -> Change[ImageRecord]:
        retry = moved(
            record,
            State.TRANSFER if record.state is State.TRANSFER else State.INIT,
            now,
            attempt=record.attempt + 1,
            tries=record.tries + 1,
            progress=None,
            waiting_since=now,
            begun=False,
            due_at=self._lease(now),
        )
        return self._asking(retry)

    def _failure(
        self, record: ImageRecord, code: str, message: str, now: datetime
    ) -> Change[ImageRecord]:
        failure = Failure(code=code, message=message)
        forgotten_at = now + FAILURE_SHOWN
        ended = self._ended(record, State.FAILURE, now, failure=failure, due_at=forgotten_at)
        return Change(ended, dropped(record, ended))

    def _ended(
        self, record: ImageRecord, state: State, now: datetime, **changes: object
    ) -> ImageRecord:
        ended = {"due_at": None, "progress": None, "recipe": None, "failure": None, **changes}
        ended |= {"login": None, "ticket": None, "arrives_public": False, "file_identity": None}
        return lasting(moved(record, state, now, **ended), self.days(record.system))

    def days(self, system: str) -> int:
        """After how many days without use a system's images expire; 0: never."""
        known = self.systems.get(system)
        return 0 if known is None else known.expire_after_days

    def _lease(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self.rules.lease)

    def _asking(
        self, record: ImageRecord, cause: Event | None = None, *, anew: bool = False
    ) -> Change[ImageRecord]:
        """The record with the event that asks a worker for what is to be done next."""
        platform = self.systems[record.system].platform
        record, ticket = issued(record)
        if anew:
            return Change(record, (pull_work(record, platform, cause, ticket),))
        return Change(record, (next_work(record, platform, ticket),))


def _about(record: ImageRecord, event: PullEvent) -> bool:
    return event.attempt == record.attempt and record.state.in_flight
