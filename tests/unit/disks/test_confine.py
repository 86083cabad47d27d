"""What a confined process can still do: work with what it has open, and end."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

TRIES = """
import ctypes, json, os, resource, socket, subprocess, sys, threading, time
from services.converter.disks.confine import confine

fd, memory = int(sys.argv[1]), int(sys.argv[2])
ended = threading.Event()
other = threading.Thread(target=lambda: (ended.wait(), told("thread", os.listdir, "/")))
other.start()
there = socket.socketpair()
found = {}

def told(name, call, *arguments):
    try:
        call(*arguments)
    except (OSError, RuntimeError, MemoryError) as exc:
        found[name] = getattr(exc, "errno", None) or type(exc).__name__
    else:
        found[name] = "done"

confine(memory)
told("open", open, "/etc/passwd")
told("create", os.open, "/tmp/never", os.O_CREAT | os.O_WRONLY)
told("remove", os.unlink, sys.argv[3])
told("list", os.listdir, "/")
told("connect", socket.socket)
told("start", subprocess.run, ["/bin/true"])
told("fork", os.fork)
told("signal", os.kill, 1, 0)
told("new thread", threading.Thread(target=print).start)
told("memory", bytearray, 2 * memory)
ended.set()
other.join()
told("read", os.pread, fd, 10, 0)
told("stat", os.fstat, fd)
told("answer", there[0].send, b"x")
told("some memory", bytearray, memory // 4)
told("clock", time.time_ns)
os.write(1, json.dumps(found).encode())
"""


@pytest.mark.skipif(
    platform.machine() not in {"x86_64", "aarch64"}, reason="no list of calls for this machine"
)
def test_nothing_but_what_is_open(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    with kept.open("rb") as file:
        fd = file.fileno()
        command = [sys.executable, "-c", TRIES, str(fd), str(256 << 20), str(kept)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            command, pass_fds=[fd], capture_output=True, check=False, env=environment, timeout=60
        )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    allowed = {name for name, what in found.items() if what == "done"}
    assert allowed == {"read", "stat", "answer", "some memory", "clock"}
    assert found["memory"] == "MemoryError"
    assert found["new thread"] == "RuntimeError"
    others = set(found) - allowed - {"memory", "new thread"}
    assert {found[name] for name in others} == {1}
    assert kept.read_text() == "kept"
