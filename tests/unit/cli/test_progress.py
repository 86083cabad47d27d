"""How far a pull is: the rate of now, the time that is left, and layers on small screens."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import progress
from cli.answers import Layer, Progress, read_pull
from cli.progress import Pace
from cli.tables import width_of
from shared.states import State
from tests.support.terminals import read_all
from tests.support.views import pulling


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _at(
    done: int, total: int = 1000, *, rate: float = 0.0, stage: State = State.PULLING
) -> Progress:
    return Progress(stage, done, total, rate, ())


def test_at_first_the_gateway_s_word_on_the_rate_is_taken() -> None:
    assert Pace(Clock()).of(_at(100, rate=100.0)) == "100 B/s, 9.0 s left"
    assert Pace(Clock()).of(_at(100)) == ""


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    pace = Pace(clock)
    for second in range(60):
        clock.now = float(second)
        shown = pace.of(_at(10 * second, 10_000))  # slow
    assert shown.startswith("10 B/s")
    for second in range(60, 90):
        clock.now = float(second)
        shown = pace.of(_at(600 + 100 * (second - 60), 10_000))  # then fast
    assert shown.startswith("100 B/s")


def test_another_stage_or_another_try_begins_anew() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.of(_at(0))
    clock.now = 10.0
    assert pace.of(_at(500)) == "50 B/s, 10.0 s left"
    assert pace.of(_at(0, rate=20.0)) == "20 B/s, 50.0 s left"
    assert pace.of(_at(900, rate=0.0, stage=State.TRANSFER)) == ""


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.integers(0, 2**60), st.integers(0, 2**60)), max_size=50
    )
)
def test_whatever_is_said_the_window_stays_small_and_nothing_is_negative(
    steps: list[tuple[float, int, int]],
) -> None:
    clock = Clock()
    pace = Pace(clock)
    for passed, done, total in steps:
        clock.now += passed
        assert "-" not in pace.of(_at(done, total))
        assert len(pace._seen) <= progress.WINDOW / progress.STEP + 2


def test_a_stage_says_how_many_layers_are_over() -> None:
    layers = (
        Layer("a", 0, 10, cached=True),
        Layer("b", 10, 10, cached=False),
        Layer("c", 3, 10, cached=False),
        Layer("d", 0, 0, cached=False),
    )
    assert progress._layers(Progress(State.PULLING, 23, 30, 0.0, layers)) == "2 of 4 layers"


def test_a_small_screen_shows_the_largest_layers_in_their_order() -> None:
    layers = tuple(Layer(str(at), 0, size, cached=False) for at, size in enumerate((5, 9, 1, 7)))
    assert [layer.digest for layer in progress._shown(layers, 2)] == ["1", "3"]


def test_what_is_waited_for_is_told_at_once_and_once() -> None:
    written: list[str] = []
    lines = progress.Lines(written.append, repeat=1000)
    busy = "waiting 30 s for the registry: h limits how often it may be asked"
    for waiting in (None, busy, busy):
        view = pulling(5, 10, waiting=waiting)
        lines.update(read_pull(json.loads(view.model_dump_json())))
    told = [line.partition(" s  ")[2] for line in written]
    assert told == ["PULLING     5 B of 10 B in 2 layers, 1 re-used", f"PULLING     {busy}"]


PROGRAM = """
import json
from cli.answers import read_pull
from cli.progress import Bars
from tests.support.views import pulling
bars = Bars()
view = json.loads(pulling(250_000_000, 1_000_000_000).model_dump_json())
layer = view["progress"]["layers"][0]
layers = [layer | {"digest": f"sha256:{at:02}" + "\\x1b" * 62} for at in range(40)]
view["progress"]["layers"] = layers
with bars.drawing:
    bars.update(read_pull(view))
    bars.drawing.refresh()
"""


@pytest.mark.parametrize(("width", "bar"), [(120, True), (80, True), (50, False), (20, False)])
def test_bars_keep_to_the_screen_they_are_on(width: int, bar: bool) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 10, width, 0, 0))
    try:
        env = {name: os.environ[name] for name in ("PATH",)} | {"TERM": "xterm"}
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=theirs, env=env, cwd=Path(__file__).parents[3]
        )
        os.close(theirs)
        shown = read_all(ours).decode()
        assert process.wait(60) == 0
    finally:
        os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n").split("\n")
    assert max(map(width_of, lines)) <= width
    assert "\x1b" not in "".join(lines)
    assert any(line.startswith("PULLIN") for line in lines)
    assert ("━" in shown) is bar
    layers = {line[:2] for line in lines if re.match(r"\d\d", line)}
    assert 0 < len(layers) < 10
