"""Logins: passwords are asked for without echo, never in arguments, never over an open wire."""

import json
import os
import pty
import subprocess
import sys
import termios

import pytest

from cli import logins
from cli.errors import UsageError
from cli.gateway import Gateway
from shared.api import LoginsView, LoginView
from tests.support.conditions import eventually
from tests.support.scripted_gateway import Reply, Script, problem, says
from tests.support.terminals import read_all
from tests.support.views import NOW

Served = tuple[str, Script]
VIEW = LoginView(registry="registry.example.org", username="ada", checked_at=NOW, expires_at=NOW)
DRAY = [sys.executable, "-c", "from cli.main import main; main()"]


def _dray(url: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DRAY, *arguments],
        input=given,
        env=os.environ | {"DRAY_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,  # without a terminal
    )


@pytest.mark.parametrize("password", ["pa:ss'\"word", " with blanks ", "\N{GREEK SMALL LETTER PI}"])
def test_a_password_from_stdin_arrives_as_it_is(served: Served, password: str) -> None:
    url, script = served
    script.on("POST /api/v1/logins", says(VIEW))
    arguments = ("login", "registry.example.org", "-u", "ada", "--password-stdin")
    done = _dray(url, *arguments, given=f"{password}\n")
    assert done.returncode == 0, done.stderr
    assert script.asked[-1][1] == {
        "registry": "registry.example.org",
        "username": "ada",
        "password": password,
    }
    assert done.stdout.startswith("registry.example.org takes ada; kept until 2026-05-01 12:00 UTC")
    assert password not in done.stdout + done.stderr


def test_what_the_registry_refuses_is_told_and_docker_hub_needs_no_name(served: Served) -> None:
    url, script = served
    script.on("POST /api/v1/logins", problem(401, "login_refused", "docker.io does not take it"))
    done = _dray(url, "login", "-u", "ada", "--password-stdin", given="x")
    assert (done.returncode, done.stderr) == (
        1,
        "dray: docker.io does not take it [login_refused]\n",
    )
    assert script.asked[-1][1] == {"username": "ada", "password": "x"}


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (("-u", "ada"), "x", "--password-stdin"),
        (("--password-stdin",), "x", "--username"),
        (("-u", "ada", "--password-stdin"), "\n", "empty"),
        (("-u", "ada", "--password-stdin"), "x" * 9000, "longer than"),
        (("-u", "ada", "--password", "secret"), "", "No such option"),
    ],
)
def test_what_cannot_be_a_login_is_wrong_usage(
    served: Served, arguments: tuple[str, ...], given: str, said: str
) -> None:
    url, script = served
    done = _dray(url, "login", *arguments, given=given)
    assert done.returncode == 2
    assert said in done.stderr
    assert script.asked == []


async def test_a_terminal_is_asked_without_echo(served: Served) -> None:
    url, script = served
    script.on("POST /api/v1/logins", says(VIEW))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, "login", "registry.example.org", "-u", "ada"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"DRAY_URL": url},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        shown = b""
        while b"Password of ada at registry.example.org: " not in shown:
            shown += os.read(ours, 4096)
        await eventually(lambda: not termios.tcgetattr(ours)[3] & termios.ECHO, within=10)
        os.write(ours, b"s3cret\n")
        shown += read_all(ours)
        assert process.wait(30) == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"s3cret" not in shown
    assert script.asked[-1][1]["password"] == "s3cret"


ON_A_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from cli.main import main
main()
"""


@pytest.mark.parametrize(
    "url", ["http://gateway.example.org", "http://127.0.0.1:1,http://192.0.2.1"]
)
def test_a_password_never_travels_where_others_read_along(url: str) -> None:
    with pytest.raises(UsageError, match="https://"):
        logins.login(Gateway(url), None, "ada", stdin=True, docker=False, json=False)


def test_logins_are_listed_and_forgotten(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    url, script = served
    script.on("GET /api/v1/logins", says(LoginsView(items=(VIEW,))))
    script.on("DELETE /api/v1/logins/registry.example.org%3A5000", Reply(status=204))
    script.on("DELETE /api/v1/logins/docker.io", Reply(status=204))
    assert logins.logins(Gateway(url), json=True) == 0
    assert json.loads(capsys.readouterr().out)["items"][0]["username"] == "ada"
    logins.logins(Gateway(url), json=False)
    assert "registry.example.org  ada" in capsys.readouterr().out
    logins.logout(Gateway(url), "registry.example.org:5000", json=False)
    logins.logout(Gateway(url), None, json=True)
    assert script.asked[-1][0] == "DELETE /api/v1/logins/docker.io"
