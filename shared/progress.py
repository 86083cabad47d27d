"""Tells the gateway how far a pull is: at most twice a second, and often enough to keep its lease.

A report that cannot be published is dropped: the next one says more, and the work goes on.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shared.bus.interface import Bus
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.events import MAX_TEXT, LayerProgress, PullEvent, PullProgressed
from shared.logging import get_logger
from shared.states import State
from shared.tasks import cancel_all
from shared.waiting import Waits

log = get_logger(__name__)

INTERVAL = 0.5
SILENCES_PER_LEASE = 4


@dataclass(slots=True)
class Part:
    """One layer, or the image as a whole. `done` may be set from any thread."""

    total: int
    done: int = 0
    cached: bool = False


class ProgressReporter:
    """Reports one attempt at one pull while `running`."""

    def __init__(self, bus: Bus, cause: PullEvent, *, lease: float, timeout: float) -> None:
        self._bus = bus
        self._cause = cause
        self._longest_silence = lease / SILENCES_PER_LEASE
        self._timeout = timeout
        self._stage = State.PULLING
        self._parts: dict[str, Part] = {}
        self._whole: Part | None = None
        self._rate = 0.0
        self._measured = (time.monotonic(), 0)
        self._news = asyncio.Event()
        self._waits = Waits()

    def enter(self, stage: State, whole: Part | None = None) -> None:
        """Say at once that a stage has begun. `whole` counts where there are no layers."""
        self._stage = stage
        self._whole = whole
        self._news.set()

    def expect(self, parts: dict[str, Part]) -> None:
        """The layers to come, by digest: said at once, so that everybody sees how much it is."""
        self._parts = parts
        self._news.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._report_until_cancelled(), name="progress")
        try:
            with self._waits.heard():
                yield
        finally:
            await cancel_all(task)

    async def _report_until_cancelled(self) -> None:
        sent: PullProgressed | None = None
        sent_at = 0.0
        while True:
            self._news.clear()
            report = self._report()
            silent = time.monotonic() - sent_at
            if sent is None or _says_more(report, sent) or silent > self._longest_silence:
                await self._publish(report)
                sent, sent_at = report, time.monotonic()
            try:
                async with asyncio.timeout(INTERVAL):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _report(self) -> PullProgressed:
        parts = [self._whole] if self._whole else list(self._parts.values())
        done = sum(min(part.done, part.total) for part in parts)
        fetched = sum(part.done for part in parts if not part.cached)
        still = fetched == self._measured[1]
        return PullProgressed(
            **self._cause.context,
            stage=self._stage,
            done=done,
            total=sum(part.total for part in parts),
            rate=self._measure(fetched),
            layers=tuple(
                LayerProgress(
                    digest=digest,
                    done=min(part.done, part.total),
                    total=part.total,
                    cached=part.cached,
                )
                for digest, part in self._parts.items()
            ),
            # One layer that waits while others come is nobody's concern.
            waiting=self._waiting() if still else None,
        )

    def _waiting(self) -> str | None:
        reason = self._waits.reason
        return reason[:MAX_TEXT] if reason is not None else None

    def _measure(self, fetched: int) -> float:
        """Bytes per second, smoothed over a few reports."""
        now = time.monotonic()
        then, before = self._measured
        if now - then >= INTERVAL / 2:
            latest = max(0.0, (fetched - before) / (now - then))
            self._rate = latest if self._rate == 0.0 else 0.6 * self._rate + 0.4 * latest
            self._measured = (now, fetched)
        return round(self._rate, 1)

    async def _publish(self, report: PullProgressed) -> None:
        try:
            await self._bus.publish(report, Deadline.after(self._timeout))
        except DrayError as exc:
            log.debug("progress_not_published", code=exc.code)


def _says_more(report: PullProgressed, sent: PullProgressed) -> bool:
    return any(
        getattr(report, name) != getattr(sent, name)
        for name in ("stage", "done", "total", "waiting")
    )
