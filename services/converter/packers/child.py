"""The life of a process that packs one layer: forked by the nursery, gone when it has answered.

Its owner gives the layer up by hanging up, or by dying: then the work ends by itself and leaves
nothing, or, where it hangs, the kernel ends the process.
"""

import os
import resource
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

from services.converter.crossing import encoded, told
from services.converter.packers.messages import (
    Outcome,
    Packed,
    PackOrder,
    order_of,
)
from services.converter.packers.piped import PipedBlob
from services.converter.packing.compressors import Compressors
from services.converter.packing.errors import LayerTooLargeError
from services.converter.packing.pack_layer import PackSummary, pack_layer

_OOM_SCORE: Final = Path("/proc/self/oom_score_adj")
_FIRST_TO_GO: Final = 500
LAST_WORD_SECONDS: Final = 8
"""Shorter than the owner waits, who then may say that nobody is left."""


def live(packet: bytes, pipe: int, owner: socket.socket) -> NoReturn:
    """All of it, in a process that has nothing else to do."""
    status = 1
    try:
        owner.send(encoded(_outcome(packet, pipe, owner)))
        status = 0
    finally:
        os._exit(status)


def _outcome(packet: bytes, pipe: int, owner: socket.socket) -> Outcome:
    try:
        return Packed(summary=_pack(order_of(packet), pipe, owner))
    except MemoryError:
        pass  # told below, where no traceback holds what took the memory
    except Exception as exc:  # noqa: BLE001 - whatever it is, the owner hears of it
        return told(exc)
    most, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return told(
        LayerTooLargeError(
            f"packing a layer takes more than {most >> 20:,} MiB of memory, which is not allowed"
        )
    )


def _pack(order: PackOrder, pipe: int, owner: socket.socket) -> PackSummary:
    _allow(order.memory)
    with suppress(OSError):  # where memory runs out all the same: rather this than the service
        _OOM_SCORE.write_text(str(_FIRST_TO_GO))
    blob = PipedBlob(pipe, owner)
    cancelled = threading.Event()
    threading.Thread(target=watch, args=(owner, blob, cancelled), daemon=True).start()
    with Compressors(order.threads) as compressors:
        return pack_layer(
            blob,
            expected=order.expected,
            options=order.options,
            out_path=Path(order.out_path),
            compressors=compressors,
            limits=order.limits,
            literal=order.literal,
            on_progress=lambda _: None,
            cancelled=cancelled,
        )


def _allow(memory: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY or soft > memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))


def watch(owner: socket.socket, blob: PipedBlob, cancelled: threading.Event) -> None:
    """End the work when its owner has hung up."""
    owner.recv(1)  # returns when the owner hangs up: it never says anything
    # First: the kernel's clock ends us even where a library never lets this thread go on.
    signal.alarm(LAST_WORD_SECONDS)
    cancelled.set()
    blob.close()
