"""A process that puts an inside together, and whose agent is gone: it runs nothing of the image."""

import encodings
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.node_agent.inside import build
from services.node_agent.inside.furnish import plan_of
from services.node_agent.inside.order import BuildOrder
from shared.settings.inside import InsideSettings
from tests.support.insides import PERSON
from tests.support.squashfs import is_root, system_tree
from tests.support.users import let_everybody_in

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not is_root(), reason="namespaces of others need root"),
]


def test_an_image_with_files_in_the_builder_s_places_gets_nothing_run(tmp_path: Path) -> None:
    """To show a line of its source the interpreter would load a decoder: as root, the image's."""
    let_everybody_in(tmp_path)
    tree = system_tree(tmp_path / "tree")
    source = tree / str(build.__file__).lstrip("/")
    source.parent.mkdir(parents=True)
    source.write_text("# -*- coding: of_image -*-\n" + "line\n" * 300)
    decoders = tree / str(Path(encodings.__file__).parent).lstrip("/")
    decoders.mkdir(parents=True)
    (decoders / "of_image.py").write_text("import os; os.write(2, b'RUN BY THE IMAGE')\n")
    plan = plan_of(str(tree), PERSON, InsideSettings())
    order = BuildOrder(plan.to_json(), PERSON.uid, PERSON.gid, PERSON.gids)
    agent, builder = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agent.send(order.packed())
    agent.close()
    with builder:
        done = subprocess.run(
            [sys.executable, "-P", "-m", build.__name__, str(builder.fileno())],
            pass_fds=[builder.fileno()],
            env={"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stderr == "BrokenPipeError: [Errno 32] Broken pipe\n"
    assert done.returncode == 1
