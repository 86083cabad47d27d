"""The words of the state machine, which are also the words on the wire; there are no others.

INIT → PULLING → (EXAMINATION) → CONVERSION → TRANSFER → READY, with FAILURE from any of them, and
EXPIRING → EXPIRED. Within one attempt a pull only moves forward, so a late or reordered event
can be told from news by comparing ranks.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a pull is."""

    INIT = "INIT"
    PULLING = "PULLING"
    EXAMINATION = "EXAMINATION"
    CONVERSION = "CONVERSION"
    TRANSFER = "TRANSFER"
    READY = "READY"
    FAILURE = "FAILURE"
    EXPIRING = "EXPIRING"
    EXPIRED = "EXPIRED"

    @property
    def rank(self) -> int:
        return _ORDER.index(self)

    @property
    def in_flight(self) -> bool:
        return self in IN_FLIGHT


_ORDER = tuple(State)
CONVERTING = (State.INIT, State.PULLING, State.EXAMINATION, State.CONVERSION)
IN_FLIGHT = (*CONVERTING, State.TRANSFER)
