"""Passwords of users: tried at once, kept through crashes, and to be found nowhere."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.as_user import Somebody
from tests.support.conditions import eventually
from tests.support.gate import Gate
from tests.support.images import File, build_image, layer_of
from tests.support.noise import noise
from tests.support.private_site import (
    ALICE,
    PASSWORD,
    READY,
    log_in,
    pull,
    pulled_by_alice,
    push,
    secret_image,
)
from tests.support.registry import DebianRegistry
from tests.support.site import Site
from tests.support.users import let_everybody_in

pytestmark = pytest.mark.root


async def test_a_killed_dray_up_costs_no_private_pull(
    registry: DebianRegistry, tmp_path: Path
) -> None:
    """The password is still there for the next attempt, and gone when the pull has ended."""
    let_everybody_in(tmp_path)
    image = build_image([layer_of({"large": File(noise(2 << 20))})])
    push(registry, image)
    async with Gate(registry.port) as gate, Site(tmp_path / "site") as site:
        await site.up()
        async with Somebody(site.socket, ALICE) as alice:
            await log_in(alice, gate.host, "alice", PASSWORD)
            gate.hold_after(1 << 20)
            body = {"reference": f"{gate.host}/alice/app:1"}
            status, view = await alice.ask("POST", "/api/v1/pulls", body)
            assert status == 202, view
            await eventually(lambda: gate.holding, within=20)
            # The login that is kept is not what the pull lives from.
            assert (await alice.ask("DELETE", f"/api/v1/logins/{gate.host}"))[0] == 204
        site.kill("up")
        gate.open()
        await site.up()
        ended = await site.reached(view["id"], READY, "FAILURE", within=60)
        assert (ended["state"], ended["private"]) == (READY, True), ended["failure"]
        assert ended["attempt"] > 1
        await site.stop("up")
    with closing(sqlite3.connect(tmp_path / "site" / "data" / "catalog.db")) as database:
        [[document]] = database.execute("SELECT document FROM images")
    record = json.loads(document)
    assert (record["owner"], record["login"], record["ticket"]) == (ALICE, None, None)


async def test_a_wrong_password_is_told_at_once_and_not_kept(
    site: Site, registry: DebianRegistry, alice: Somebody, bob: Somebody
) -> None:
    reference = push(registry, secret_image())
    body = {"registry": registry.host, "username": "alice", "password": "wrong " + PASSWORD}
    status, problem = await alice.ask("POST", "/api/v1/logins", body)
    assert (status, problem["code"]) == (401, "login_refused")
    assert "user name and password" in problem["detail"]
    assert (await alice.ask("GET", "/api/v1/logins"))[1]["items"] == []
    without = await pull(alice, reference)
    assert (without["state"], without["failure"]["code"]) == ("FAILURE", "registry_access_refused")

    await log_in(alice, registry.host, "alice", PASSWORD)
    _, mine = await alice.ask("GET", "/api/v1/logins")
    assert [(each["registry"], each["username"]) for each in mine["items"]] == [
        (registry.host, "alice")
    ]
    assert (await bob.ask("GET", "/api/v1/logins"))[1]["items"] == []
    assert (await bob.ask("DELETE", f"/api/v1/logins/{registry.host}"))[0] == 404
    assert (await alice.ask("DELETE", f"/api/v1/logins/{registry.host}"))[0] == 204
    assert (await alice.ask("GET", "/api/v1/logins"))[1]["items"] == []


async def test_the_password_is_nowhere(
    site: Site, registry: DebianRegistry, alice: Somebody
) -> None:
    await pulled_by_alice(site, alice, registry)
    await site.stop("up")
    forms = [PASSWORD.encode(), b"s3cret", b"alice:s3cret"]
    for path in site.directory.rglob("*"):
        if path.is_file() and path.suffix != ".pack":
            content = path.read_bytes()
            for form in forms:
                assert form not in content, (path, form)
