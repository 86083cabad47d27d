"""What can go wrong with the process that packs a layer, besides what is wrong with the layer."""

import signal
from typing import Self

from shared.errors import DrayError


class PackerDiedError(DrayError):
    """The process that packed a layer is gone, and has not said why."""

    code = "packer_died"
    retryable = True

    @classmethod
    def ended(cls, layer: str, status: int | None) -> Self:
        """`status` as subprocess has it: negative for a signal; None if nobody knows."""
        if status is None:
            return cls(
                f"the process that packed layer {layer} is gone, and nobody saw why: pull again; "
                "if it stays so, the operator must look at the converter's log"
            )
        if status == -signal.SIGKILL:
            return cls(
                f"the process that packed layer {layer} was killed by SIGKILL, most likely because "
                "memory ran out: pull again; if it stays so, the operator must give the converter "
                "more memory, or fewer layers at a time (converter.parallel_layers)"
            )
        how = f"exited with status {status}" if status >= 0 else f"was ended by {_name(-status)}"
        return cls(
            f"the process that packed layer {layer} {how}: pull again; if it stays so, the layer "
            "may have been made to crash a codec, and the operator should look at it"
        )

    @classmethod
    def unstarted(cls, layer: str, reason: str) -> Self:
        return cls(
            f"no process to pack layer {layer} could be started ({reason}): pull again; if it "
            "stays so, the operator must look at the converter's memory, and at its limits on "
            "processes and open files"
        )


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
