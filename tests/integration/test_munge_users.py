"""Users who prove themselves to a real gateway by a real MUNGE daemon."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.gateway.auth.munge import MAX_PAYLOAD
from shared.munge import Munge
from tests.support.conditions import eventually
from tests.support.gateways import Running, gateway
from tests.support.munged import Munged
from tests.support.users import NOBODY

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes credentials of other users: root")


@pytest.fixture(scope="module")
def munged() -> Iterator[Munged]:
    with Munged() as daemon:
        yield daemon


@pytest.fixture
async def running(tmp_path: Path, munged: Munged) -> AsyncIterator[Running]:
    async with gateway(tmp_path / "data", munge_socket=munged.socket) as started:
        yield started


async def test_a_credential_says_who_asks(running: Running, munged: Munged) -> None:
    said = await running.munge(munged.credential())
    assert said.status == 200
    assert said.body["uid"] == os.getuid()
    assert os.getgid() in said.body["gids"]
    assert said.body["via"] == "munge"
    assert "admin" in said.body["scopes"]  # it is the gateway's own user


@pytest.mark.root
@as_root
async def test_another_user_is_another_user(running: Running, munged: Munged) -> None:
    said = await running.munge(munged.credential(uid=NOBODY))
    assert (said.body["uid"], said.body["name"]) == (NOBODY, "nobody")
    assert said.body["scopes"] == ["read", "pull"]
    refused = await running.munge(munged.credential(uid=NOBODY), "/admin/dead-letters")
    assert (refused.status, refused.code) == (403, "not_allowed")
    stranger = await running.munge(munged.credential(uid=424242))
    assert (stranger.body["name"], stranger.body["gids"]) == ("424242", [424242])


async def test_a_credential_is_good_once(running: Running, munged: Munged) -> None:
    credential = munged.credential()
    assert (await running.munge(credential)).status == 200
    again = await running.munge(credential)
    assert (again.status, again.code) == (401, "munge_replayed")
    assert "new one for each request" in again.body["detail"]
    assert again.headers["WWW-Authenticate"] == "MUNGE, Bearer"


async def test_an_old_credential_is_refused(running: Running, munged: Munged) -> None:
    credential = Munge(munged.socket).encode(ttl=1)
    made = time.time()
    await eventually(lambda: time.time() > made + 2.1, within=5)
    said = await running.munge(credential)
    assert (said.status, said.code) == (401, "munge_expired")
    assert "clocks" in said.body["detail"]


async def test_a_credential_for_other_eyes_is_refused(running: Running, munged: Munged) -> None:
    said = await running.munge(Munge(munged.socket).encode(only_uid=os.getuid() + 1))
    assert (said.status, said.code) == (401, "munge_restricted")
    ours = await running.munge(Munge(munged.socket).encode(only_uid=os.getuid()))
    assert ours.status == 200


async def test_what_this_cluster_did_not_make_is_refused(running: Running, munged: Munged) -> None:
    real = munged.credential()
    middle = len(real) // 2
    other = "A" if real[middle] != "A" else "B"
    with Munged() as another_cluster:
        foreign = another_cluster.credential()
    for credential in (
        "",
        "garbage",
        "MUNGE:",
        "MUNGE:AAAA:",
        real[:middle] + other + real[middle + 1 :],
        real[:-10],
        f"{real} {real}",
        foreign,
    ):
        said = await running.munge(credential)
        assert (said.status, said.code) == (401, "munge_invalid"), credential
    assert (await running.munge(real)).status == 200


async def test_a_payload_of_passwords_fits_and_more_does_not(
    running: Running, munged: Munged
) -> None:
    munge = Munge(munged.socket)
    full = munge.encode(os.urandom(MAX_PAYLOAD))
    assert (await running.munge(full)).status == 200
    over = await running.munge(munge.encode(os.urandom(MAX_PAYLOAD + 1)))
    assert (over.status, over.code) == (401, "munge_invalid")
    assert "64 KiB" in over.body["detail"]


async def test_a_bad_credential_never_makes_one_the_public(
    running: Running, munged: Munged
) -> None:
    for header in ("", "Basic YTpi", "MUNGE", "Bearer", "MUNGE x"):
        said = await running.ask("/images", authorization=header)
        assert said.status == 401, header
    good = f"MUNGE {munged.credential()}"
    async with running.network.get(
        f"{running.url}/api/v1/whoami", headers=[("Authorization", good), ("Authorization", good)]
    ) as twice:
        assert twice.status == 401


async def test_shifter_s_header_is_for_shifter_s_routes(running: Running, munged: Munged) -> None:
    said = await running.ask("/whoami", authentication=munged.credential())
    assert said.body["via"] == "nobody"


async def test_on_shifter_s_routes_errors_are_of_its_wire(running: Running, munged: Munged) -> None:
    credential = munged.credential()
    for sent, status in ((credential, 200), (credential, 404), ("garbage", 404)):
        async with running.network.get(
            f"{running.url}/api/list/local/", headers={"authentication": sent}
        ) as answer:
            assert answer.status == status
            assert answer.headers["Content-Type"] == "application/json"
            body = await answer.json()
            assert status == 200 or "MUNGE credential" in body["error"]


async def test_without_the_daemon_one_is_told_so_and_others_go_on(tmp_path: Path) -> None:
    with Munged() as daemon:
        credential = daemon.credential()
        async with gateway(tmp_path / "data", munge_socket=daemon.socket) as running:
            daemon.stop()
            said = await running.munge(credential)
            assert (said.status, said.code) == (503, "munge_unavailable")
            assert "munged" in said.body["detail"]
            assert (await running.ask("/whoami")).status == 200


async def test_a_daemon_that_hangs_holds_nobody_else_up(tmp_path: Path) -> None:
    with Munged() as daemon:
        credentials = [daemon.credential() for _ in range(6)]
        async with gateway(tmp_path / "data", munge_socket=daemon.socket) as running:
            daemon.freeze()
            waiting = [asyncio.create_task(running.munge(each)) for each in credentials]
            began = time.monotonic()
            assert (await running.ask("/whoami")).status == 200
            assert not any(task.done() for task in waiting)
            said = await asyncio.gather(*waiting)
            assert time.monotonic() - began < 25
            assert {each.status for each in said} == {503}
            daemon.thaw()


async def test_what_came_along_is_never_told(
    running: Running, munged: Munged, capfd: pytest.CaptureFixture[str]
) -> None:
    password = "s3cr:et\"pass'word"
    payload = {"authorized_locations": {"default": f"user:{password}"}}
    munge = Munge(munged.socket)
    credential = munge.encode(json.dumps(payload).encode())
    said = [await running.munge(credential), await running.munge(credential)]
    said.append(await running.munge(credential[:-3] + "A=:"))
    assert [each.status for each in said] == [200, 401, 401]
    told = "".join(json.dumps(each.body) for each in said) + "".join(capfd.readouterr())
    assert credential[10:60] not in told
    assert "s3cr" not in told


@pytest.mark.root
@as_root
async def test_the_command_line_proves_itself_anew_for_each_request(
    running: Running, munged: Munged
) -> None:
    env = {"DRAY_URL": running.url, "DRAY_MUNGE_SOCKET": str(munged.socket)}
    for arguments, expected in ((("whoami",), "munge"), (("images",), "No image is READY")):
        done = await asyncio.to_thread(running.dray, *arguments, **env)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    token = await asyncio.to_thread(running.dray, "token", "--scope", "pull", **env)
    assert token.returncode == 0, token.stderr
    known = await asyncio.to_thread(
        running.dray, "whoami", DRAY_URL=running.url, DRAY_TOKEN=token.stdout.strip()
    )
    assert "token" in known.stdout
    assert "read, pull" in known.stdout
    public = await asyncio.to_thread(
        running.dray, "whoami", DRAY_URL=running.url, DRAY_MUNGE_SOCKET="none"
    )
    assert "anonymous" in public.stdout
    broken = await asyncio.to_thread(
        running.dray, "whoami", DRAY_URL=running.url, DRAY_MUNGE_SOCKET="/nonexistent"
    )
    assert broken.returncode == 1
    assert "DRAY_MUNGE_SOCKET=none" in broken.stderr
