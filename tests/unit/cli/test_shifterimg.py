"""The drop-in for Shifter's command: what it asks for, and what scripts read of it."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.errors import UsageError
from cli.shifterimg import main as shifterimg
from cli.shifterimg.conf import DEFAULT_TIMEOUT, Conf, parse_conf, read_conf
from cli.shifterimg.options import parse_image, parse_options
from tests.support.scripted_gateway import Reply, Script, scripted_gateway

ID = "ab" * 32
RECORD = {
    "id": ID, "system": "cluster", "itype": "docker", "tag": ["ubuntu:24.04"], "status": "READY",
    "userACL": [], "groupACL": [], "ENV": ["A=b"], "ENTRY": "MISSING", "WORKDIR": "MISSING",
    "LABELS": "MISSING", "last_pull": 1700000000.5, "status_message": "",
}  # fmt: skip
PULL = "POST /api/pull/cluster/docker/ubuntu%3A24.04/"
LOOKUP = "GET /api/lookup/cluster/docker/ubuntu%3A24.04/"


def says(status: int = 200, /, **changes: Any) -> Reply:
    return Reply(json.dumps(RECORD | changes).encode(), status)


def refuses(why: str, status: int = 404) -> Reply:
    content = {"status": status, "error": why, "message": "Not Found: /api/…"}
    return Reply(json.dumps(content).encode(), status)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.setattr(shifterimg, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("DRAY_MUNGE_SOCKET", "none")
    with scripted_gateway() as (url, script):
        configured(tmp_path, monkeypatch, url)
        yield script


def configured(directory: Path, monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    conf = directory / "udiRoot.conf"
    conf.write_text(f"udiMount=/var/udiMount\nimageGateway={' '.join(urls)}\nsystem=cluster\n")
    monkeypatch.setenv("DRAY_UDIROOT_CONF", str(conf))


Ran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str]) -> Ran:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = shifterimg.run(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_images_are_in_the_columns_that_scripts_cut(script: Script, ran: Ran) -> None:
    other = RECORD | {"tag": ["b:2", "a:1"], "id": "cd" * 32, "last_pull": 0.0}
    content = json.dumps({"list": [RECORD, other]}).encode()
    script.on("GET /api/list/cluster/", Reply(content))
    never, pulled = (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(stamp)) for stamp in (0, 1700000000)
    )
    lines = [
        f"cluster    docker     READY    cdcdcdcdcd   {never} a:1{' ' * 27}",
        f"cluster    docker     READY    cdcdcdcdcd   {never} b:2{' ' * 27}",
        f"cluster    docker     READY    ababababab   {pulled} ubuntu:24.04{' ' * 18}",
    ]
    assert ran("images") == (0, "".join(f"{line}\n" for line in lines), "")


def test_lookup_prints_the_id_and_nothing_else(script: Script, ran: Ran) -> None:
    script.on(LOOKUP, says())
    assert ran("lookup", "docker:ubuntu:24.04") == (0, f"{ID}\n", "")
    assert ran("lookup", "ubuntu:24.04") == (0, f"{ID}\n", "")


def test_lookup_of_nothing_fails_and_says_why(script: Script, ran: Ran) -> None:
    script.on(LOOKUP, refuses("ubuntu:24.04 is not READY"))
    assert ran("lookup", "ubuntu:24.04") == (1, "", "shifterimg: ubuntu:24.04 is not READY\n")


def test_verbose_prints_the_gateways_own_words(script: Script, ran: Ran) -> None:
    script.on(LOOKUP, says())
    code, out, _ = ran("-v", "lookup", "ubuntu:24.04")
    assert (code, out) == (0, f"Message: {json.dumps(RECORD)}\n{ID}\n")
    assert '"status": "READY"' in out
    script.on(LOOKUP, refuses("no"))
    _, out, _ = ran("lookup", "ubuntu:24.04", "--verbose")
    assert out.startswith("Got response: 404\nMessage: {")


def test_a_pull_is_asked_for_until_it_is_ready(script: Script, ran: Ran) -> None:
    script.on(PULL, says(status="INIT"), says(status="EXAMINATION"), says())
    code, out, err = ran("pull", "ubuntu:24.04")
    assert (code, err) == (0, "")
    lines = out.split("\r\x1b[2K")[1:]
    shown = [line.partition(" ")[2] for line in lines]
    what = "Pulling Image: docker:ubuntu:24.04, status: "
    assert shown == [f"{what}INIT", f"{what}EXAMINATION", f"{what}READY\n"]
    assert [body for _, body in script.asked] == [None] * 3, "an empty body, as the original's"


def test_a_failed_pull_says_why_and_fails(script: Script, ran: Ran) -> None:
    script.on(PULL, says(status="PULLING"), says(status="FAILURE", status_message="no such tag"))
    code, out, err = ran("-v", "pull", "ubuntu:24.04")
    assert (code, err) == (1, "shifterimg: ubuntu:24.04: no such tag\n")
    assert out.endswith("Pulling Image: docker:ubuntu:24.04, status: FAILURE\n")
    assert "\x1b" not in out


def test_pullnb_asks_once(script: Script, ran: Ran) -> None:
    script.on(PULL, says(status="PULLING"))
    code, out, _ = ran("pullnb", "ubuntu:24.04")
    assert (code, len(script.asked)) == (0, 1)
    assert out.endswith("status: PULLING")


def test_readers_are_sent_by_number(script: Script, ran: Ran) -> None:
    script.on(PULL, says())
    assert ran("--user", "root, 4242", "-u", "7", "-g", "50", "pull", "ubuntu:24.04")[0] == 0
    assert script.asked == [(PULL, {"allowed_uids": "0,4242,7", "allowed_gids": "50"})]
    code, _, err = ran("pull", "--user", "no-such-user", "ubuntu:24.04")
    assert (code, "no user 'no-such-user'" in err) == (1, True)


@pytest.mark.parametrize(("told", "code"), [(True, 0), (False, 1), (None, 1)])
def test_expire_says_what_was_not_done(
    told: bool | None, code: int, script: Script, ran: Ran
) -> None:
    answer = Reply(json.dumps({"status": told}).encode())
    script.on("GET /api/expire/cluster/docker/a%2Fb%3A1/", answer)
    assert ran("expire", "a/b:1")[0] == code


def test_autoexpire_is_for_administrators(script: Script, ran: Ran) -> None:
    for told, code in (([ID], 0), ([], 0), (False, 1)):
        script.on("GET /api/autoexpire/cluster/", Reply(json.dumps({"status": told}).encode()))
        assert ran("autoexpire")[0] == code


def test_several_gateways_are_tried_in_turn(
    script: Script, ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.on(LOOKUP, says())
    with scripted_gateway() as (broken, other), socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        deaf = f"http://127.0.0.1:{bound.getsockname()[1]}"
        other.on(LOOKUP, refuses("the catalog does not answer", 503))
        good = read_conf().gateways[0]
        for urls in ((deaf, broken, good), (good, deaf, broken), (broken, good, deaf)):
            configured(tmp_path, monkeypatch, *urls)
            assert ran("lookup", "ubuntu:24.04") == (0, f"{ID}\n", "")
        configured(tmp_path, monkeypatch, deaf)
        code, out, err = ran("lookup", "ubuntu:24.04")
        assert (code, out) == (1, "")
        assert f"no image gateway answers at {deaf}" in err


def test_a_gateway_cannot_steer_the_terminal(script: Script, ran: Ran) -> None:
    script.on(LOOKUP, says(id="\x1b[31mred"))
    assert "\x1b" not in ran("lookup", "ubuntu:24.04")[1]


def test_a_stranger_is_named(script: Script, ran: Ran) -> None:
    script.on(LOOKUP, Reply(b"<html>hello</html>", 200, "text/html"))
    code, _, err = ran("lookup", "ubuntu:24.04")
    assert (code, "imageGateway=" in err) == (1, True)


@pytest.mark.parametrize(
    "arguments", [(), ("bogus",), ("lookup",), ("pull",), ("--bogus", "images"), ("--user",)]
)
def test_wrong_usage_says_how_to_get_help(arguments: tuple[str, ...], ran: Ran) -> None:
    code, out, err = ran(*arguments)
    assert (code, out) == (1, "")
    assert "shifterimg --help" in err


def test_help_needs_no_settings(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAY_UDIROOT_CONF", "/nonexistent")
    code, out, _ = ran("--help")
    assert (code, out.startswith("Usage:\n shifterimg")) == (0, True)
    code, _, err = ran("images")
    assert (code, "/nonexistent" in err) == (1, True)


def test_it_imports_little() -> None:
    heavy = "{'pydantic', 'typer', 'rich', 'aiohttp', 'structlog', 'asyncio'}"
    program = f"import sys, cli.shifterimg.main; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_udiroot_conf_is_read_as_the_original_reads_it() -> None:
    text = (
        "# imageGateway=http://old:5000\n"
        "siteFs=/home:/home;\\\n"
        "  /scratch:/scratch\n"
        "imageGateway = http://one:5000/ \\\n"
        "   http://two:5000\n"
        "nonsense\n"
        "system=cluster\n"
        "gatewayTimeout=7\n"
        "defaultImageType=custom\n"
    )
    conf = parse_conf(text, "udiRoot.conf")
    assert conf == Conf(("http://one:5000", "http://two:5000"), "cluster", 7.0, "custom")
    shortest = parse_conf("imageGateway=http://one\nsystem=x", "udiRoot.conf")
    assert shortest == Conf(("http://one",), "x", DEFAULT_TIMEOUT, "docker")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("", "imageGateway="),
        ("system=x", "imageGateway="),
        ("imageGateway=http://one", "system="),
        ("imageGateway=http://one\nsystem=x\ndefaultImageType=oci", "defaultImageType=oci"),
    ],
)
def test_a_conf_without_what_it_takes_is_told(text: str, missing: str) -> None:
    with pytest.raises(UsageError, match=missing):
        parse_conf(text, "udiRoot.conf")


@given(st.text(max_size=200))
def test_any_conf_is_read_or_refused(text: str) -> None:
    try:
        conf = parse_conf(f"imageGateway=http://one\nsystem=x\n{text}", "udiRoot.conf")
    except UsageError:
        return
    assert conf.gateways
    assert conf.system


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("ubuntu:24.04", ("docker", "ubuntu:24.04")),
        ("docker:ubuntu:24.04", ("docker", "ubuntu:24.04")),
        ("host:5000/a/b:1", ("docker", "host:5000/a/b:1")),
        ("id:" + ID, ("id", ID)),
        ("custom:tool:1", ("custom", "tool:1")),
        ("ubuntu", ("docker", "ubuntu")),
    ],
)
def test_a_type_may_stand_before_an_image(text: str, image: tuple[str, str]) -> None:
    assert parse_image(text, "docker") == image


def test_options_stand_where_one_likes() -> None:
    one = parse_options(["--user", "7", "-v", "pull", "x"])
    assert one is not None
    assert one == parse_options(["pull", "x", "--user=7", "--verbose"])
    assert (one.uids, one.gids, one.verbose, one.what) == ((7,), (), True, "x")
    assert parse_options(["-h"]) is None
