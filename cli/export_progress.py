"""How far an export is, drawn as a pull is drawn, on stderr: stdout may be the file."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cli.answers import Progress
from cli.progress import Bars, Display, Moment, Silence
from shared.states import State

STAGES: Final = {
    State.TRANSFER: "fetching the image's file",
    State.EXAMINATION: "checking every byte",
    State.CONVERSION: "making one layer of it",
}
_INTERVAL: Final = 0.1


class Meter:
    """Told of bytes as they come; draws now and then."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._stage: State | None = None
        self._began = self._drawn = 0.0
        self._first = 0
        self._silent = False

    def tell(self, stage: State, done: int = 0, total: int = 0) -> None:
        now = time.monotonic()
        if stage is not self._stage:
            self._stage, self._began, self._first = stage, now, done
        elif now - self._drawn < _INTERVAL and not self._silent:
            return
        self._drawn, self._silent = now, False
        rate = (done - self._first) / max(now - self._began, _INTERVAL)
        progress = Progress(stage, done, total, rate, ()) if total else None
        self._display.update(Moment(stage, progress))

    def away(self, seconds: float, reason: str) -> None:
        self._silent = True
        self._display.away(seconds, reason)


@contextmanager
def metering(*, json: bool) -> Iterator[Meter]:
    if json or not sys.stderr.isatty():
        yield Meter(Silence())
        return
    bars = Bars(stderr=True, meaning=STAGES)
    with bars.drawing:
        yield Meter(bars)
