"""Insides of an agent whose own mount namespace has a higher number than what is made later."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.squashfs import is_root, system_tree
from tests.support.users import let_everybody_in

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not is_root(), reason="namespaces of others need root"),
]

# More numbers than a CPU has in stock are used up on one CPU, which the agent's namespace is then
# of; what is made on the other has smaller ones.
AGENT = """
import os, sys, threading, time
from pathlib import Path
from services.node_agent.inside.builder import Patience, build
from services.node_agent.inside.order import BuildOrder
from services.node_agent.inside.pins import Pins
from shared import linux
from shared.inside.plan import Plan

place, image = sys.argv[1:]
one, other = sorted(os.sched_getaffinity(0))[:2]
os.sched_setaffinity(0, {one})
for _ in range(5000):
    linux.unshare(linux.CLONE_NEWUTS)
linux.unshare(linux.CLONE_NEWNS)
linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
os.sched_setaffinity(0, {other})
pins = Pins(Path(place))
order = BuildOrder(Plan(image).to_json(), uid=65534, gid=65534, gids=())
patience = Patience(time.monotonic() + 30, threading.Event())
pinned = build(pins, "7.65534.a", order, {}, patience)
print(*sorted(path.name for path in pinned.iterdir() if os.path.ismount(path)))
pins.remove("7.65534.a")
pins.close()
"""


def test_an_agent_in_a_namespace_of_its_own_pins_whatever_its_number(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU has one stock of numbers")
    let_everybody_in(tmp_path)
    system_tree(tmp_path / "tree")
    # Twice: which CPU's numbers are higher to begin with, nobody knows.
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", AGENT, tmp_path / "insides", tmp_path / "tree"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("mnt user user-mnt\n", "")
