"""`dray top`: the site as the gateway tells it, drawn anew whenever that changes.

A thread follows the gateway's live stream, or asks now and then where no stream gets through; the
other draws, and listens for the key that ends it.
"""

import select
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from cli import show
from cli.errors import RefusedError, UnreachableError
from cli.gateway import Gateway
from cli.site_now import SiteNow

POLL_SECONDS: Final = 3.0
DRAW_SECONDS: Final = 0.5
_FAULT: Final = 500
_TOO_MANY: Final = 429
_END: Final = ("q", "Q", "\x1b", "\x03")


def top(gateway: Gateway, system: str | None, *, once: bool, json: bool) -> int:
    site = SiteNow()
    if json or once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        _ask(gateway, system, site)
        if json:
            show.document(site.document())
        else:
            _print(site)
        return 0
    _watch(gateway, system, site)
    return 0


def _print(site: SiteNow) -> None:
    from rich.console import Console  # noqa: PLC0415

    from cli.top_view import frame  # noqa: PLC0415

    console = Console(highlight=False)
    console.print(frame(site, console.width, rows=None))


def _watch(gateway: Gateway, system: str | None, site: SiteNow) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from cli.top_view import frame  # noqa: PLC0415

    # Before the screen is taken: what is wrong with the question is told as an error.
    _ask(gateway, system, site)
    following = threading.Thread(
        target=_follow, args=(gateway, system, site), name="live", daemon=True
    )
    following.start()
    console = Console(highlight=False)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while site.refused is None:
            live.update(frame(site, console.width, rows=console.height), refresh=True)
            if pressed(DRAW_SECONDS) in _END:
                return
    raise site.refused


def _follow(gateway: Gateway, system: str | None, site: SiteNow) -> None:
    while True:
        try:
            for kind, data in gateway.live(system):
                site.heard(kind, data)
            reason = "the gateway ended the stream"
        except (UnreachableError, RefusedError) as exc:
            if isinstance(exc, RefusedError) and _is_final(exc):
                site.refused = exc
                return
            reason = exc.message.partition("\n")[0]
        site.lost(reason)
        with suppress(UnreachableError, RefusedError):
            _ask(gateway, system, site)
        time.sleep(POLL_SECONDS)


def _is_final(exc: RefusedError) -> bool:
    return exc.answered < _FAULT and exc.answered != _TOO_MANY


def _ask(gateway: Gateway, system: str | None, site: SiteNow) -> None:
    query = {"system": system}
    asked = [(name, value) for name, value in query.items() if value is not None]
    overview = gateway.call("GET", "/overview", query=asked).body
    pulls = list(gateway.pages("/queue", query))
    jobs = None
    with suppress(RefusedError):  # the public has none
        jobs = list(gateway.pages("/jobs", {**query, "running": "true"}, most=100, page=100))
    site.asked(overview, pulls, jobs)


@contextmanager
def _keys() -> "Iterator[Pressed]":
    """Keys as they are pressed, without Enter; the terminal is as before at the end."""
    import termios  # noqa: PLC0415
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield Pressed()
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class Pressed:
    """Which key is pressed within some seconds; "" for none."""

    def __call__(self, seconds: float) -> str:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return sys.stdin.read(1) if ready else ""
