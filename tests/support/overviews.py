"""An overview of a busy site, for whoever makes something of it."""

from collections.abc import Sequence

from services.gateway.auth.identity import Principal
from shared.api import JobsStanding, NodesStanding, Overview, QueueStanding, StageStanding
from shared.models import utcnow
from shared.states import State


def overview() -> Overview:
    return Overview(
        at=utcnow(),
        version="1",
        worries=(),
        stages=(
            StageStanding(state=State.INIT, pulls=5, waiting=5, oldest_seconds=90.0),
            StageStanding(state=State.PULLING, pulls=4, waiting=0, oldest_seconds=500.0),
        ),
        failed=1,
        queues=(
            QueueStanding(name="converter.pulls", waiting=5, consumers=1, oldest_seconds=90.0),
            QueueStanding(name="gateway.events", waiting=7, consumers=1, oldest_seconds=1.0),
        ),
        dead_letters=2,
        nodes=NodesStanding(alive=30, lost=1),
        jobs=JobsStanding(running=4, nodes=40, pending=8, failed=3, lost=1),
    )


class Overviewed:
    """Says that overview to whoever asks for all."""

    def __init__(self, said: Overview) -> None:
        self._said = said

    async def current(self, principal: Principal, systems: Sequence[str]) -> Overview:
        assert principal.admin
        assert systems
        return self._said
