"""Following one pull to its end, also across a restart of the gateway."""

import time
from collections.abc import Iterator
from typing import Final

from cli.answers import Pull, read_pull
from cli.errors import RefusedError, UnreachableError
from cli.gateway import Gateway

PATIENCE: Final = 120.0
"""How long a gateway may be away before the command gives up watching."""
LOOK_AGAIN: Final = 1.0


def follow(gateway: Gateway, pull: Pull) -> Iterator[Pull]:
    """The pull as it stands, then each change, the last of them its end."""
    yield pull
    heard = time.monotonic()
    while not pull.ended:
        try:
            for raw in gateway.pull_events(pull.id):
                heard = time.monotonic()
                pull = read_pull(raw)
                yield pull
                if pull.ended:
                    return
            # The stream may end before the pull does: its gateway is being stopped.
            pull = read_pull(gateway.pull(pull.id))
            heard = time.monotonic()
            yield pull
        except (UnreachableError, RefusedError) as exc:
            if isinstance(exc, RefusedError) and exc.answered < 500:
                raise
            if time.monotonic() - heard > PATIENCE:
                raise UnreachableError(
                    f"the pull goes on, but no gateway has said anything about it for "
                    f"{PATIENCE:.0f} s: {exc.message}\nRejoin it with: dray pull {pull.reference}"
                ) from exc
        if not pull.ended:
            time.sleep(LOOK_AGAIN)
