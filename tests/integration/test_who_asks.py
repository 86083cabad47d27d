"""A real gateway asks who somebody is: socket, token, nobody; and how much they may ask."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ConfigError
from tests.support.gateways import Running, gateway
from tests.support.users import NOBODY, let_everybody_in

JOB = {"job_id": "17", "images": ["alpine:3"], "nodes": ["n1"]}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: needs root")


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with gateway(tmp_path / "data") as started:
        yield started


async def token(running: Running, **wanted: Any) -> str:
    made = await running.ask_locally("/tokens", "POST", wanted)
    assert made.status == 201, made.body
    assert made.headers["Cache-Control"] == "no-store"
    return str(made.body["token"])


async def test_the_socket_says_who_connects(running: Running) -> None:
    me = (await running.ask_locally("/whoami")).body
    assert (me["uid"], me["via"]) == (os.getuid(), "socket")
    assert set(os.getgroups()) <= set(me["gids"])
    assert me["scopes"] == ["read", "pull", "admin"]
    assert (await running.ask_locally("/admin/dead-letters")).status == 200


@pytest.mark.root
@as_root
async def test_another_user_of_the_machine_is_no_admin(running: Running, tmp_path: Path) -> None:
    let_everybody_in(tmp_path)
    let_everybody_in(running.socket.parent)
    status, me = await asyncio.to_thread(running.ask_as_nobody, "/whoami")
    assert status == 200
    assert (me["uid"], me["name"], me["scopes"]) == (NOBODY, "nobody", ["read", "pull"])
    for path, method, body in (
        ("/jobs", "POST", JOB),
        ("/jobs/17", "DELETE", None),
        ("/admin/dead-letters", "GET", None),
        ("/admin/dead-letters/x/replay", "POST", None),
        ("/tokens", "POST", {"scopes": ["admin"]}),
        ("/tokens", "POST", {"service": "grafana"}),
    ):
        status, problem = await asyncio.to_thread(running.ask_as_nobody, path, method, body)
        assert (status, problem["code"]) == (403, "not_allowed"), path
    status, made = await asyncio.to_thread(
        running.ask_as_nobody, "/tokens", "POST", {"scopes": ["pull"]}
    )
    assert status == 201
    known = (await running.bearer(made["token"])).body
    assert (known["uid"], known["via"]) == (NOBODY, "token")
    assert known["scopes"] == ["read", "pull"]


@pytest.mark.root
@as_root
async def test_a_user_whom_the_settings_name_is_an_admin(tmp_path: Path) -> None:
    async with gateway(tmp_path / "data", admins=("nobody",)) as running:
        let_everybody_in(running.socket.parent)
        status, _ = await asyncio.to_thread(running.ask_as_nobody, "/admin/dead-letters")
        assert status == 200


async def test_the_public_may_not_do_what_needs_a_name(running: Running) -> None:
    me = (await running.ask("/whoami")).body
    assert (me["name"], me["uid"], me["scopes"]) == ("anonymous", None, ["read", "pull"])
    for path, method, body in (
        ("/jobs", "POST", JOB),
        ("/jobs/17", "DELETE", None),
        ("/admin/dead-letters", "GET", None),
        ("/tokens", "POST", {}),
    ):
        said = await running.ask(path, method, body)
        assert (said.status, said.code) == (401, "not_authenticated"), path
        assert said.headers["WWW-Authenticate"] == "MUNGE, Bearer"


@pytest.mark.parametrize(("anonymous", "reading"), [("none", 401), ("read", 200)])
async def test_a_site_may_shut_the_public_out(tmp_path: Path, anonymous: str, reading: int) -> None:
    async with gateway(tmp_path / "data", anonymous=anonymous) as running:
        for path in ("/images", "/queue", "/systems", "/whoami"):
            assert (await running.ask(path)).status == reading
        pull = await running.ask("/pulls", "POST", {"reference": "alpine:3"})
        assert (pull.status, pull.code) == (401, "not_authenticated")
        async with running.network.get(f"{running.url}/livez") as health:
            assert health.status == 200
        assert (await running.ask_locally("/images")).status == 200


async def test_a_token_says_who_asks_from_anywhere(running: Running) -> None:
    reader = await token(running)
    me = (await running.bearer(reader)).body
    assert (me["uid"], me["via"], me["scopes"]) == (os.getuid(), "token", ["read"])
    assert (await running.bearer(reader, "/images")).status == 200
    pull = await running.bearer(reader, "/pulls", "POST", {"reference": "alpine:3"})
    assert (pull.status, pull.code) == (403, "not_allowed")
    more = await running.bearer(reader, "/tokens", "POST", {})
    assert (more.status, more.code) == (403, "not_allowed")
    admin = await token(running, scopes=["admin"], service="slurmctld", seconds=60)
    assert (await running.bearer(admin, "/admin/dead-letters")).status == 200
    assert (await running.bearer(admin)).body["name"] == "service:slurmctld"


async def test_a_token_that_was_touched_is_none(running: Running) -> None:
    good = await token(running)
    for bad in (good[:-1], good + "A", good.replace("dray1.", "dray2."), "x" * 5000, ""):
        said = await running.bearer(bad)
        assert said.status == 401
    assert (await running.ask("/images", authorization=f"bearer {good}")).status == 200
    async with running.network.get(f"{running.url}/api/v1/whoami?token={good}") as by_url:
        assert (await by_url.json())["via"] == "nobody"
    async with running.network.get(
        f"{running.url}/api/v1/whoami", cookies={"token": good, "Authorization": f"Bearer {good}"}
    ) as by_cookie:
        assert (await by_cookie.json())["via"] == "nobody"


async def test_a_token_cannot_be_asked_for_longer_than_the_site_allows(tmp_path: Path) -> None:
    async with gateway(tmp_path / "data", token_max_life=60) as running:
        said = await running.ask_locally("/tokens", "POST", {"seconds": 61})
        assert (said.status, said.code) == (400, "invalid_input")
        senseless: list[dict[str, Any]] = [
            {"scopes": []},
            {"scopes": ["root"]},
            {"service": "a/b"},
            {"uid": 0},
        ]
        for body in senseless:
            assert (await running.ask_locally("/tokens", "POST", body)).status == 400


async def test_gateways_that_share_a_secret_take_each_other_s_tokens(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 64)
    async with (
        gateway(tmp_path / "a", secret_file=secret) as first,
        gateway(tmp_path / "b", secret_file=secret) as second,
        gateway(tmp_path / "c") as stranger,
    ):
        made = await token(first)
        assert (await second.bearer(made)).status == 200
        said = await stranger.bearer(made)
        assert (said.status, said.code) == (401, "token_invalid")
        assert "gateway.secret_file" in said.body["detail"]


async def test_a_second_gateway_in_the_same_place_leaves_the_socket_to_the_first(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    async with gateway(data) as first:
        async with gateway(data) as second:
            assert (await second.ask("/whoami")).status == 200
            assert (await second.bearer(await token(first))).status == 200
        assert (await first.ask_locally("/whoami")).status == 200
        with pytest.raises(ConfigError, match="another process of this machine"):
            async with gateway(tmp_path / "b", socket=first.socket):
                pass
    assert not first.socket.exists()


async def test_what_a_crash_left_behind_is_replaced(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(data / "gateway.sock"))
    async with gateway(data) as running:
        assert (await running.ask_locally("/whoami")).status == 200
        assert running.socket.stat().st_mode & 0o777 == 0o666


async def test_a_file_is_never_replaced_by_a_socket(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    with pytest.raises(ConfigError, match=r"gateway\.socket: cannot listen"):
        async with gateway(tmp_path / "data", socket=precious):
            pass
    assert precious.read_text() == "data"


async def test_every_answer_names_its_request(running: Running) -> None:
    for path in ("/whoami", "/nothing-here", "/jobs/17"):
        said = await running.ask(path, x_request_id="my-id.1")
        assert said.headers["X-Request-Id"] == "my-id.1"
    made = {(await running.ask("/whoami")).headers["X-Request-Id"] for _ in range(3)}
    assert len(made) == 3
    for strange in ("a" * 65, "a b", "<script>", "-x", "ä"):
        said = await running.ask("/whoami", x_request_id=strange)
        assert said.headers["X-Request-Id"] != strange


async def test_the_log_names_the_request(
    running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    made = await running.ask_locally("/tokens", "POST", {})
    [line] = [line for line in "".join(capfd.readouterr()).splitlines() if "token_made" in line]
    assert made.headers["X-Request-Id"] in line


async def test_who_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with gateway(tmp_path / "data", requests_per_second=1, request_burst=3) as running:
        said = [await running.ask("/whoami") for _ in range(8)]
        assert {each.status for each in said[:3]} == {200}
        late = next(each for each in said if each.status == 429)
        assert late.code == "too_many_requests"
        assert int(late.headers["Retry-After"]) >= 1
        # An admin, and a service account, have other buckets; health has none.
        assert {(await running.ask_locally("/whoami")).status for _ in range(8)} == {200}
        service = await token(running, service="grafana")
        assert (await running.bearer(service)).status == 200
        async with running.network.get(f"{running.url}/livez") as health:
            assert health.status == 200


async def test_a_stranger_s_page_cannot_use_the_socket_s_trust(running: Running) -> None:
    """A browser cannot reach a socket; whoever forwards it one still cannot be made to act."""
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        async with running.local.post(
            "http://localhost/api/v1/tokens", json={}, headers=headers
        ) as answer:
            assert answer.status in {403, 421}


async def test_what_is_secret_is_not_told(
    running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    made = await token(running)
    await running.bearer(made)
    await running.bearer(made[:-1])
    key = (running.socket.parent / "gateway.secret").read_text().strip()
    told = "".join(capfd.readouterr())
    assert "token_made" in told
    for secret in (made, made.rpartition(".")[2], key):
        assert secret not in told


async def test_the_command_line_finds_the_socket_by_itself(tmp_path: Path) -> None:
    async with gateway(tmp_path / "dray") as running:
        env = {"XDG_DATA_HOME": str(tmp_path)}
        done = await asyncio.to_thread(running.dray, "whoami", "--json", **env)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["via"] == "socket"
        made = await asyncio.to_thread(running.dray, "token", "--expires", "90s", **env)
        assert made.returncode == 0, made.stderr
        assert (await running.bearer(made.stdout.strip())).body["scopes"] == ["read"]
        assert "until" in made.stderr
        named = await asyncio.to_thread(running.dray, "whoami", DRAY_URL=f"unix://{running.socket}")
        assert "socket" in named.stdout


async def test_streams_of_one_user_are_bounded(tmp_path: Path) -> None:
    async with gateway(tmp_path / "data", streams_per_user=1) as running:
        asked = await running.ask("/pulls", "POST", {"reference": "127.0.0.1:1/a:1"})
        path = f"{running.url}/api/v1/pulls/{asked.body['id']}/events"
        async with running.network.get(path) as first:
            assert first.status == 200
            assert first.headers["X-Request-Id"]
            await first.content.readany()
            async with running.network.get(path) as second:
                assert second.status == 429
                assert (await second.json())["code"] == "too_many_streams"
