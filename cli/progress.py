"""Showing a pull as it goes: bars on a terminal, a line per change anywhere else."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from cli import show
from cli.answers import Layer, Progress
from shared.states import State

if TYPE_CHECKING:
    from rich.progress import TaskID

QUIET_SECONDS: Final = 10.0
"""In a log, a long stage says how far it is this often."""
MAX_BARS: Final = 16
BESIDE_BARS: Final = 72
LEAST_BAR: Final = 4
WINDOW: Final = 10.0
"""The rate is that of the last seconds: what comes next is more like them than the beginning."""
STEP: Final = 0.5
"""Two looks closer than this say little about a rate."""

MEANING: Final[Mapping[State, str]] = {
    State.INIT: "waiting for a converter",
    State.PULLING: "fetching layers from the registry",
    State.EXAMINATION: "examined by the site",
    State.CONVERSION: "making one squashfs of them",
    State.TRANSFER: "placing it on the shared file system",
}


class Shown(Protocol):
    """What is shown of a pull, or of a conversion without services."""

    @property
    def state(self) -> State: ...
    @property
    def tries(self) -> int: ...
    @property
    def ended(self) -> bool: ...
    @property
    def progress(self) -> Progress | None: ...
    @property
    def trouble(self) -> str | None: ...


class Pace:
    """How fast the bytes come now, and when they will all be there."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage: State | None = None
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, progress: Progress) -> str:
        """Rate and time left; nothing where neither is known."""
        rate = self._rate(progress)
        if rate <= 0 or progress.done >= progress.total:
            return ""
        left = (progress.total - progress.done) / rate
        return f"{show.size(rate)}/s, {show.duration(left)} left"

    def _rate(self, progress: Progress) -> float:
        now, seen = self._clock(), self._seen
        if progress.stage is not self._stage or (seen and progress.done < seen[-1][1]):
            seen.clear()  # another stage, or another try
            self._stage = progress.stage
        if not seen or now - seen[-1][0] >= STEP:
            seen.append((now, progress.done))
        while len(seen) > 2 and now - seen[1][0] >= WINDOW:
            seen.popleft()
        began, done = seen[0]
        if now - began < 2 * STEP:
            return progress.rate
        return (progress.done - done) / (now - began)


@dataclass(frozen=True, slots=True)
class Moment:
    """Of work that is drawn as a pull is, without a gateway."""

    state: State
    progress: Progress | None
    tries: int = 1
    ended: bool = False
    trouble: str | None = None


class Display(Protocol):
    """Somewhere to show a pull."""

    def update(self, pull: Shown) -> None: ...

    def away(self, seconds: float, reason: str) -> None:
        """No gateway answers for so long now; the next update says that one does again."""


class Silence:
    """For JSON: only the end is told."""

    def update(self, pull: Shown) -> None:
        return

    def away(self, seconds: float, reason: str) -> None:
        return


class Lines:
    """One line per change of state, with the bytes."""

    def __init__(
        self,
        write: Callable[[str], None],
        repeat: float,
        meaning: Mapping[State, str] = MEANING,
    ) -> None:
        self._write = write
        self._stages = meaning
        self._repeat = repeat
        self._pace = Pace()
        self._began = time.monotonic()
        self._phase: tuple[State, int] | None = None
        self._latest = ""
        self._printed = ""
        self._printed_at = 0.0
        self._away = False
        self._waited = False

    def update(self, pull: Shown) -> None:
        now = time.monotonic()
        self._away = False
        if pull.ended:
            self._print(self._latest, now)
            return
        told = _told(pull, self._stages)
        progress = _current(pull)
        pace = self._pace.of(progress) if progress and progress.total else ""
        waiting = progress.waiting if progress else None
        if self._phase != (pull.state, pull.tries):
            # What the state before came to, which its first line could not know.
            self._print(self._latest, now)
            self._phase = (pull.state, pull.tries)
            self._print(told, now)
        elif waiting and not self._waited:
            self._print(f"{pull.state:<10}  {show.plain(waiting)}", now)
        elif now - self._printed_at >= self._repeat:
            self._print(f"{told}, {pace}" if pace else told, now)
        self._waited = waiting is not None
        self._latest = told

    def away(self, seconds: float, reason: str) -> None:
        if not self._away:
            self._away = True
            self._print(f"no gateway answers; waiting ({show.plain(reason)})", time.monotonic())

    def _print(self, line: str, now: float) -> None:
        if line and line != self._printed:
            self._write(f"{now - self._began:7.1f} s  {line}")
            self._printed, self._printed_at = line, now


class Bars:
    """A bar for each layer and one for the whole, redrawn in place below what is over."""

    def __init__(self, *, stderr: bool = False, meaning: Mapping[State, str] = MEANING) -> None:
        from rich import progress  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = Console(highlight=False, stderr=stderr)
        self._room = max(1, min(MAX_BARS, console.height - 3))
        # A bar is the first to go where a screen is narrow, and the end of a note the next.
        bar = min(30, console.width - BESIDE_BARS)
        rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self.drawing = progress.Progress(
            progress.TextColumn("{task.description:<10}", markup=False),
            *([progress.BarColumn(bar_width=bar)] if bar >= LEAST_BAR else []),
            progress.TextColumn("{task.fields[amount]:>16}", markup=False),
            progress.TextColumn("{task.fields[note]}", markup=False, table_column=rest),
            console=console,
            transient=True,
            expand=True,
        )
        self._over = Lines(
            lambda line: console.print(Text(line)), repeat=float("inf"), meaning=meaning
        )
        self._stages = meaning
        self._pace = Pace()
        self._whole = self.drawing.add_task("INIT", total=None, amount="", note="")
        self._layers: dict[str, TaskID] = {}

    def update(self, pull: Shown) -> None:
        self._over.update(pull)
        progress = _current(pull)
        note = _meaning(pull, self._stages)
        if progress and progress.total and not progress.waiting:
            note = ", ".join(filter(None, (self._pace.of(progress), _layers(progress)))) or note
        self.drawing.update(
            self._whole,
            description=str(pull.state),
            completed=progress.done if progress else 0,
            total=progress.total or None if progress else None,
            amount=_amount(progress.done, progress.total) if progress else "",
            note=note,
        )
        for layer in _shown(progress.layers if progress else (), self._room):
            self._show_layer(layer)

    def away(self, seconds: float, reason: str) -> None:
        note = f"no gateway answers; waiting ({show.duration(seconds)})"
        self.drawing.update(self._whole, note=note)

    def _show_layer(self, layer: Layer) -> None:
        done = layer.total if layer.cached else layer.done
        amount, note = _amount(done, layer.total), "re-used" if layer.cached else ""
        if task := self._layers.get(layer.digest):
            self.drawing.update(
                task, completed=done, total=layer.total or None, amount=amount, note=note
            )
        elif len(self._layers) < self._room:
            name = show.plain(layer.digest).removeprefix("sha256:")[: show.SHORT_ID - 2]
            self._layers[layer.digest] = self.drawing.add_task(
                name, completed=done, total=layer.total or None, amount=amount, note=note
            )


def display_for(
    *, json: bool, terminal: bool, meaning: Mapping[State, str] = MEANING
) -> tuple[Display, AbstractContextManager[object]]:
    """What fits where stdout leads, and what has to be entered while it shows."""
    if json:
        return Silence(), nullcontext()
    if terminal:
        bars = Bars(meaning=meaning)
        return bars, bars.drawing
    return Lines(lambda line: print(line, flush=True), QUIET_SECONDS, meaning), nullcontext()


def _told(pull: Shown, stages: Mapping[State, str]) -> str:
    progress = _current(pull)
    line = f"{pull.state:<10}  "
    if progress is None or not progress.total:
        return line + _meaning(pull, stages)
    if progress.done:
        line += f"{show.size(progress.done)} of {show.size(progress.total)}"
    else:
        line += f"{stages.get(pull.state, '')}: {show.size(progress.total)}"
    if progress.layers:
        reused = sum(layer.cached for layer in progress.layers)
        line += f" in {show.count(len(progress.layers), 'layer')}"
        line += f", {reused} re-used" if reused else ""
    return line


def _meaning(pull: Shown, stages: Mapping[State, str]) -> str:
    progress = _current(pull)
    if progress is not None and progress.waiting:
        return show.plain(progress.waiting)
    if pull.state is State.INIT and pull.trouble:
        return show.plain(pull.trouble)
    return stages.get(pull.state, "")


def _current(pull: Shown) -> Progress | None:
    """Progress of an earlier stage says nothing about this one."""
    progress = pull.progress
    return progress if progress and progress.stage is pull.state else None


def _amount(done: int, total: int) -> str:
    return f"{show.size(done)}/{show.size(total)}" if total else ""


def _layers(progress: Progress) -> str:
    """How many of them are over."""
    if not progress.layers:
        return ""
    over = sum(layer.cached or 0 < layer.total <= layer.done for layer in progress.layers)
    return f"{over} of {show.count(len(progress.layers), 'layer')}"


def _shown(layers: tuple[Layer, ...], room: int) -> tuple[Layer, ...]:
    """The layers that have work in them, if there are too many for a screen."""
    if len(layers) <= room:
        return layers
    largest = sorted(layers, key=lambda layer: layer.total, reverse=True)[:room]
    chosen = {layer.digest for layer in largest}
    return tuple(layer for layer in layers if layer.digest in chosen)
