"""`dray pull`: ask for an image, watch it come, say what it became. So are imports watched."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from cli import show
from cli.answers import Image, Pull, read_pull
from cli.errors import EXIT_FAILED, EXIT_INTERRUPTED
from cli.follow import follow
from cli.gateway import Gateway, PullWish
from cli.http import Answer
from cli.output import complain
from cli.progress import MEANING, display_for
from shared.states import State


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asked for, and the command that joins it."""

    what: str
    again: str
    remark: str
    """To be made where it is READY already."""
    meaning: Mapping[State, str]
    """Of the states on the way."""


def pull(gateway: Gateway, wish: PullWish, *, wait: bool, json: bool) -> int:
    """The exit code: 0 READY (or accepted, if not waited for), 1 FAILURE."""
    answer = gateway.request_pull(wish)
    again = show.pull_command(wish.reference, wish.system, gateway.option)
    remark = "checked" if wish.force else "unchanged" if answer.status == 200 else ""
    return watched(gateway, answer, Asked("pull", again, remark, MEANING), wait=wait, json=json)


def watched(gateway: Gateway, answer: Answer, asked: Asked, *, wait: bool, json: bool) -> int:
    """Follow what the gateway has just taken on to its end; the exit code."""
    began = time.monotonic()
    accepted = read_pull(answer.body)
    if accepted.state is State.READY:
        return _ended(accepted, asked.remark, began, json=json)
    if not wait:
        return _left_running(accepted, json=json)
    latest = accepted
    terminal = sys.stdout.isatty()
    display, drawing = display_for(json=json, terminal=terminal, meaning=asked.meaning)
    try:
        with drawing:
            for latest in follow(gateway, accepted, asked.again, display.away):
                display.update(latest)
    except KeyboardInterrupt:
        complain(f"\nThe {asked.what} goes on without us. Rejoin it with: {asked.again}")
        return EXIT_INTERRUPTED
    return _ended(latest, "", began, json=json)


def _left_running(accepted: Pull, *, json: bool) -> int:
    if json:
        show.document(accepted.raw)
    else:
        print(f"{accepted.state}  {show.plain(accepted.reference)} (pull {accepted.id})")
        print("See how it goes with `dray queue`, or rejoin it with the same command.")
    return EXIT_FAILED if accepted.state is State.FAILURE else 0


def _ended(last: Pull, remark: str, began: float, *, json: bool) -> int:
    if json:
        show.document(last.raw)
        return 0 if last.state is State.READY else EXIT_FAILED
    if last.state is State.READY and last.image is not None:
        print(_ready(last.image, remark, time.monotonic() - began))
        if last.warning:
            complain(f"dray: {show.plain(last.warning)}")
        return 0
    tries = f" after {last.tries} tries" if last.tries > 1 else ""
    reason = show.plain(last.failure or "the gateway gave no reason")
    print(f"{last.state}{tries}: {reason}", file=sys.stderr)
    if last.image is not None:
        ready = show.age(last.image.ready_at)
        print(f"The image that became READY {ready} stays usable.", file=sys.stderr)
    return EXIT_FAILED


def _ready(image: Image, remark: str, seconds: float) -> str:
    remark = "".join(f"{word}, " for word in (remark, "private" if image.private else "") if word)
    return (
        f"READY  {show.plain(image.reference)}  {remark}id {image.id[: show.SHORT_ID]}, "
        f"{show.size(image.size)}, {show.duration(seconds)}"
    )
