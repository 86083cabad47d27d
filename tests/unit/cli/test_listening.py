"""A token goes to nobody who has only taken the gateway's usual port."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import dashboard
from cli.errors import UsageError
from cli.gateway import Gateway
from cli.listening import strangers_at
from tests.support.ports import free_port
from tests.support.users import AS_NOBODY, ordinary_python

LISTEN = """
import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield path


@pytest.fixture
def squatted() -> Iterator[int]:
    port = free_port()
    command = [ordinary_python(), "-c", LISTEN, str(port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/", **AS_NOBODY
    ) as squatter:
        assert squatter.stdout is not None
        assert squatter.stdout.readline() == b"listening\n"
        yield port
        squatter.communicate(b"", timeout=20)


def test_we_and_nobody_at_all_are_no_strangers(served: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert strangers_at(ours.getsockname()[1], served) == frozenset()
    assert strangers_at(free_port(), served) == frozenset()


@pytest.mark.root
def test_no_token_is_made_for_a_stranger_at_the_usual_port(
    served: Path, squatted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(strangers_at(squatted, served)) == 1
    monkeypatch.setattr(dashboard, "LOOPBACK_GATEWAY", f"http://127.0.0.1:{squatted}")
    address = f"unix://{served}"
    with pytest.raises(UsageError, match="somebody else"):
        dashboard.dashboard(Gateway(address), address, None, None, "1h", json=False)
