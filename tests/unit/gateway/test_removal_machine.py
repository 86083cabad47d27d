"""Events of pulls and removals in any order, doubled, lost, and cut short by crashes.

Whatever happens, an image that a reference or a job counts on is there; and in the end, what nobody
wants is gone. The distributor's part is the real one, on real files; of the gateway's part the
transitions are, and its questions to the catalog are asked one by one, with anything happening
between them.
"""

import shutil
from datetime import timedelta
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from services.distributor import placement
from services.distributor.marks import LOCK, REMOVAL, Marks
from services.distributor.removal import delete_removed
from services.gateway.expiring import asked_again, dismissed
from services.gateway.transitions import PullTarget, Request
from shared.events import (
    ImageConverted,
    ImageExpired,
    ImageExpireRequested,
    ImagePlaced,
    PlacementRequested,
    PullFailed,
    PullRequested,
    RemovalDecided,
    RemovalProposed,
)
from shared.states import State
from tests.support.removal_model import SYSTEM, Job, RemovalModel, write_image
from tests.support.transitions import MACHINE, event_for

REFERENCES = [f"docker.io/library/{name}:1" for name in ("one", "two")]
REFERENCE = st.sampled_from(REFERENCES)
IMAGE = st.sampled_from("aaab")
CHOICE = st.integers(0, 1 << 30)
LOSSY = (RemovalProposed, RemovalDecided, ImageExpired)
"""Published without an outbox, or only once."""


class Removing(RemovalModel, RuleBasedStateMachine):
    """A catalog, its gateways, and a distributor over one image directory."""

    def __init__(self) -> None:
        super().__init__()
        self.placing = patch.object(placement, "_place", write_image)
        self.syncing = patch("os.fsync")
        self.placing.start()
        self.syncing.start()

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.placing.stop()
            self.syncing.stop()
            shutil.rmtree(self.directory)

    # --- what users, workers and clocks do

    @rule(reference=REFERENCE, force=st.booleans())
    def pull(self, reference: str, force: bool) -> None:
        ask = Request(PullTarget(SYSTEM, "docker", reference), "ada", force=force)
        self.change(ask.target.key, MACHINE.request(self.found(ask.target.key), ask, self.now))

    @rule(reference=REFERENCE)
    def expire(self, reference: str) -> None:
        record = self.found(PullTarget(SYSTEM, "docker", reference).key)
        if record is not None and not record.state.in_flight:
            self.change(record.key, dismissed(record, self.now))

    @rule(reference=REFERENCE, retryable=st.booleans())
    def fail(self, reference: str, retryable: bool) -> None:
        record = self.found(PullTarget(SYSTEM, "docker", reference).key)
        if record is not None:
            failed = event_for(record, PullFailed, code="x", message="y", retryable=retryable)
            self.change(record.key, MACHINE.failed(record, failed, self.now))

    @rule(minutes=st.integers(1, 60))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        for key, record in list(self.records.items()):
            if record.state is State.EXPIRING:
                self.change(key, asked_again(record, self.now, reachable=True))
            else:
                self.change(key, MACHINE.gone_quiet(record, self.now))

    @rule()
    def distributor_asks_again(self) -> None:
        for image, mark in Marks(self.directory).waiting(0.0, 10):
            self.propose(image, mark)
        delete_removed(self.directory, 0.0)

    @initialize()
    def an_image_is_ready(self) -> None:
        self.pull_on(REFERENCES[0], "a", steps=3)

    @rule(reference=REFERENCE, image=IMAGE, steps=st.integers(1, 3))
    def pull_on(self, reference: str, image: str, steps: int) -> None:
        """A pull that goes well as far as it goes: converted, placed, told."""
        self.pull(reference, force=True)
        for kind in (PullRequested, ImageConverted, PlacementRequested, ImagePlaced)[: steps + 1]:
            for event in [each for each in self.events if isinstance(each, kind)]:
                if event.key.endswith(reference):
                    self.events.remove(event)
                    self.handle(event, image)

    @rule()
    def gateway_decides(self) -> None:
        """On all that distributors have asked; they do not hear of it yet."""
        for kind in (ImageExpireRequested, RemovalProposed):
            for event in [each for each in self.events if isinstance(each, kind)]:
                self.events.remove(event)
                self.handle(event, "a")
        while self.checks:
            self.ask_next(0)

    @rule()
    def everything_arrives(self) -> None:
        while self.events or self.checks:
            while self.events:
                self.deliver(0, again=False, image="a")
            while self.checks:
                self.ask_next(0)

    # --- what happens to events

    @precondition(lambda self: self.events)
    @rule(which=CHOICE, again=st.booleans(), image=IMAGE)
    def deliver(self, which: int, again: bool, image: str) -> None:
        position = which % len(self.events)
        event = self.events[position] if again else self.events.pop(position)
        self.handle(event, image)

    @precondition(lambda self: self.events)
    @rule(which=CHOICE)
    def lose(self, which: int) -> None:
        position = which % len(self.events)
        if isinstance(self.events[position], LOSSY):
            self.events.pop(position)

    @precondition(lambda self: self.events)
    @rule(which=CHOICE)
    def crash_while_handling(self, which: int) -> None:
        """The first step of the work is done, the event is delivered once more."""
        event = self.events[which % len(self.events)]
        if isinstance(event, PlacementRequested):
            write_image(event.recipe, None, self.file(event.recipe.image_id))
        if isinstance(event, RemovalDecided):
            marked = Marks(self.directory).read(event.image_id) == event.mark
            if marked and event.remove:
                self.file(event.image_id).unlink(missing_ok=True)

    # --- the gateway's questions, each at a moment of its own

    @precondition(lambda self: self.checks)
    @rule(which=CHOICE)
    def ask_next(self, which: int) -> None:
        check = self.checks[which % len(self.checks)]
        image = check.event.image_id
        stays = False
        if check.asked == 0:
            if any(r.recipe and r.recipe.image_id == image for r in self.records.values()):
                self.checks.remove(check)
        elif check.asked == 1:
            stays = any(r.image_id == image for r in self.records.values())
        elif any(job.stored and job.image == image for job in self.jobs):
            self.checks.remove(check)
        check.asked += 1
        if check in self.checks and (stays or check.asked == 3):
            self.checks.remove(check)
            self.decide(check.event, remove=not stays)

    # --- jobs, which are announced in three steps

    @rule(reference=REFERENCE)
    def announce(self, reference: str) -> None:
        record = self.found(PullTarget(SYSTEM, "docker", reference).key)
        if record is not None and record.image_id is not None:
            self.jobs.append(Job(record.image_id))

    @precondition(lambda self: self.jobs)
    @rule(which=CHOICE)
    def announce_on(self, which: int) -> None:
        job = self.jobs[which % len(self.jobs)]
        if not job.stored:
            job.stored = True
        elif not job.checked:
            job.checked = any(r.image_id == job.image for r in self.records.values())
            if not job.checked:
                self.jobs.remove(job)

    @precondition(lambda self: self.jobs)
    @rule(which=CHOICE)
    def release(self, which: int) -> None:
        self.jobs.pop(which % len(self.jobs))

    # --- what must hold

    @invariant()
    def what_is_counted_on_is_there(self) -> None:
        for record in self.records.values():
            if record.current is not None:
                assert self.file(record.current.image_id).exists(), record
                assert record.image_id == record.current.image_id
        for job in self.jobs:
            if job.checked:
                assert self.file(job.image).exists(), job

    def finish(self) -> None:
        """Everybody leaves, and every event arrives at last."""
        self.jobs.clear()
        for _ in range(12):
            self.now += timedelta(hours=2)
            for record in list(self.records.values()):
                if record.state.in_flight:
                    failed = event_for(record, PullFailed, code="x", message="y")
                    self.change(record.key, MACHINE.failed(record, failed, self.now))
                self.expire(record.reference)
            self.time_passes(1)
            self.distributor_asks_again()
            self.everything_arrives()
        left = [path.name for path in self.directory.rglob("*") if path.name not in {REMOVAL, LOCK}]
        assert left == []
        assert {record.state for record in self.records.values()} <= {State.EXPIRED}


Removing.TestCase.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
TestRemoving = Removing.TestCase
