"""Events that die, for real: a handler that stumbles over them four times."""

from typing import Final

from bench.scene.cast import SECOND_SYSTEM, SYSTEM
from bench.scene.content import sha
from shared.bus.interface import Bus
from shared.deadline import Deadline
from shared.events import Readers, ReadersChanged

UNDIGESTIBLE: Final = "of "
"""What their correlation ids begin with."""
_NAMES: Final = ("ada", "<img src=x onerror=alert(2)>", "grace", "</pre><script>alert(3)</script>")


class DeadLetters:
    """Sends what nobody can digest at first; replayed, it is digested."""

    name = "dead-letters"

    def __init__(self, bus: Bus, *, plain: bool) -> None:
        self._bus = bus
        self._plain = plain

    async def start(self, deadline: Deadline) -> None:
        for number, name in enumerate(_NAMES):
            if self._plain and "<" in name:
                continue
            event = ReadersChanged(
                correlation_id=f"{UNDIGESTIBLE}{name}",
                system=SECOND_SYSTEM if number % 2 else SYSTEM,
                image_id=sha(name),
                readers=Readers(uids=(1001 + number,)),
                revision=number + 1,
            )
            await self._bus.publish(event, deadline)

    async def stop(self, deadline: Deadline) -> None:
        """They stay where they are, which ends with the process."""
