"""Following one pull to its end, also across a restart of the gateway."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from cli import show
from cli.answers import Pull, read_pull
from cli.errors import RefusedError, UnreachableError
from cli.gateway import Gateway

PATIENCE: Final = 120.0
"""How long a gateway may be away before the command gives up watching."""
NOTICE: Final = 2.0
"""How long before it says so: a replica may take over unnoticed."""
LOOK_AGAIN: Final = 1.0

Away = Callable[[float, str], None]
"""Called again and again while no gateway answers, with the seconds and the reason."""


def follow(gateway: Gateway, pull: Pull, again: str, away: Away) -> Iterator[Pull]:
    """The pull as it stands, then each change, the last of them its end.

    `again` is the command that would rejoin the pull.
    """
    yield pull
    lost: float | None = None
    while not pull.ended:
        try:
            for raw in gateway.pull_events(pull.id):
                lost = None
                pull = read_pull(raw)
                yield pull
                if pull.ended:
                    return
            # The stream may end before the pull does: its gateway is being stopped.
            pull = read_pull(gateway.pull(pull.id))
            lost = None
            yield pull
        except (UnreachableError, RefusedError) as exc:
            if isinstance(exc, RefusedError) and exc.answered < 500:
                raise
            lost = lost or time.monotonic()
            seconds = time.monotonic() - lost
            if seconds > PATIENCE:
                raise UnreachableError(
                    f"the pull goes on, but no gateway has said anything about it for "
                    f"{show.duration(PATIENCE)}: {exc.message}\nRejoin it with: {again}"
                ) from exc
            if seconds >= NOTICE:
                away(seconds, exc.message.partition("\n")[0])
        if not pull.ended:
            time.sleep(LOOK_AGAIN)
