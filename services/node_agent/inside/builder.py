"""Has an inside put together by a process for it, and pins what that makes. All of it blocks."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside.order import (
    GO_ON,
    MAX_PACKET,
    MOUNTS_READY,
    USERS_READY,
    BuildOrder,
    refused,
)
from services.node_agent.inside.pins import Pins
from shared.inside.enter import MOUNTS, USERS, USERS_MOUNTS

_PROGRAM: Final = "services.node_agent.inside.build"
_GONE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.2
_MOST_GROUPS: Final = 340
"""What the kernel maps in one namespace."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a builder is waited for: until then, or until nobody wants its work any more."""

    end: float
    given_up: threading.Event

    def receive(self, builder: socket.socket) -> bytes:
        while time.monotonic() < self.end and not self.given_up.is_set():
            builder.settimeout(_LOOK_SECONDS)
            with suppress(TimeoutError):
                return builder.recv(MAX_PACKET)
        raise InsideRefusedError(
            "a file system that the job wants in its image does not answer: try again, or "
            "ask the operators to look at this node"
        )


def build(
    pins: Pins, name: str, order: BuildOrder, files: Mapping[str, bytes], patience: Patience
) -> Path:
    """The directory with namespaces and files; nothing is left of one that fails."""
    packet = replace(order, place=str(pins.directory / name)).packed()
    if len(packet) > MAX_PACKET:
        raise InsideRefusedError(
            "the job's volumes and modules ask for more mounts than one image can have: bind "
            "directories rather than the files in them"
        )
    place = pins.make(name)
    try:
        pins.describe(name, files, order.uid)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                process = _started(theirs)
            try:
                ours.sendall(packet)
                _await(ours, MOUNTS_READY, patience)
                pins.pin(name, process.pid, kind="mnt", called=MOUNTS)
                ours.send(GO_ON)
                if order.for_users:
                    _await(ours, USERS_READY, patience)
                    _map(process.pid, order)
                    pins.pin(name, process.pid, kind="user", called=USERS)
                    pins.pin(name, process.pid, kind="mnt", called=USERS_MOUNTS)
                    ours.send(GO_ON)
            finally:
                # It has done its work, or hangs on a file system that does not answer.
                process.kill()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_GONE_SECONDS)
    except BaseException:
        pins.remove(name)
        raise
    return place


def _await(builder: socket.socket, stage: bytes, patience: Patience) -> None:
    packet = patience.receive(builder)
    if (reason := refused(packet)) is not None:
        raise InsideRefusedError(reason)
    if packet != stage:
        raise InsideRefusedError(
            "the process that furnishes images on this node ended without a word: the "
            "operators find why in the agent's log"
        )


def _map(pid: int, order: BuildOrder) -> None:
    """Each stays who they are, with all their groups; nobody can leave one."""
    process = Path(f"/proc/{pid}")
    (process / "uid_map").write_text(f"{order.uid} {order.uid} 1\n", encoding="ascii")
    (process / "setgroups").write_text("deny", encoding="ascii")
    gids = list(dict.fromkeys((order.gid, *order.gids)))[:_MOST_GROUPS]
    lines = "".join(f"{gid} {gid} 1\n" for gid in gids)
    (process / "gid_map").write_text(lines, encoding="ascii")


def _started(agent: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _PROGRAM, str(agent.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",  # a user's volume may be /proc/self/cwd
        pass_fds=[agent.fileno()],
        env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
    )
