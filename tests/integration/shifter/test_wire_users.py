"""Shifter's wire: who asks, and what they may."""

import json

import pytest

from tests.support.conditions import eventually
from tests.support.gate import Gate
from tests.support.shifter_wire import (
    PASSWORD,
    POLLED,
    USER,
    Raw,
    Wire,
    as_client,
    check_form,
    escaped,
    image_path,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

USAGE = {"user", "uid", "system", "type", "tag", "id", "time"}
OWNER, OTHER = 4201, 4202


async def test_one_failed_pull_is_told_to_each_who_waits(wire: Wire) -> None:
    """Each polls, and neither's question may take the answer from the other."""
    async with Gate(wire.registry.port) as gate:
        gate.hold_after(0)  # it does not fail before both have asked
        await one_failed_pull(wire, gate)


async def one_failed_pull(wire: Wire, gate: Gate) -> None:
    reference = f"{gate.host}/team/app:neither"
    path = image_path("pull", reference)
    uids = (0, 65534)

    async def ask(uid: int) -> str:
        request = as_client(wire.site.url, "POST", path, wire.munged.credential(uid=uid))
        return str((await wire.send(request)).body["status"])

    assert {await ask(uid) for uid in uids} <= POLLED
    gate.open()

    async def queued() -> bool:
        queue = (await wire.ask("GET", "/api/queue/cluster/")).body["list"]
        return {"status": "FAILURE", "image": reference} in queue

    await eventually(queued, within=30)
    assert [await ask(uid) for uid in uids] == ["FAILURE", "FAILURE"]
    assert await ask(0) in POLLED


async def test_an_image_expires_when_its_owner_or_an_administrator_says_so(wire: Wire) -> None:
    reference = wire.push("gone")
    path = image_path("pull", reference)

    async def as_user(uid: int, method: str, path: str) -> Raw:
        credential = wire.munged.credential(uid=uid)
        return await wire.send(as_client(wire.site.url, method, path, credential))

    async def ready() -> bool:
        return bool((await as_user(OWNER, "POST", path)).body["status"] == "READY")

    await eventually(ready, within=30)
    expire = image_path("expire", reference)
    for answer in (await wire.public("GET", expire), await as_user(OTHER, "GET", expire)):
        check_form(answer)
        assert answer.body == {"status": False}
    check_form(await wire.ask("GET", image_path("lookup", reference)))

    answer = await as_user(OWNER, "GET", expire)
    check_form(answer)
    assert answer.body == {"status": True}
    check_form(await wire.ask("GET", image_path("lookup", reference)), 404)
    await eventually(ready, within=30)
    assert (await wire.ask("GET", expire)).body == {"status": True}, "root is an administrator"


async def test_what_is_due_expires_for_administrators(wire: Wire) -> None:
    for answer in (await wire.public("GET", "/api/autoexpire/cluster/"),):
        check_form(answer)
        assert answer.body == {"status": False}
    answer = await wire.ask("GET", "/api/autoexpire/cluster")
    check_form(answer)
    assert answer.body == {"status": []}, "nothing is old enough"


async def test_lookups_are_counted(wire: Wire) -> None:
    reference = wire.push("counted")
    pulled = await wire.pulled(reference)
    await wire.ask("GET", image_path("lookup", reference))

    async def counted() -> bool:
        answer = await wire.ask("GET", "/api/metrics/cluster/?limit=5")
        check_form(answer)
        assert len(answer.body) <= 5
        found = [line for line in answer.body if line["tag"] == reference and line["uid"] == 0]
        return bool(found) and set(found[0]) == USAGE and found[0]["id"] == pulled["id"]

    await eventually(counted, within=30)
    answer = await wire.public("GET", "/api/metrics/cluster/")
    check_form(answer)
    assert answer.body == []
    check_form(await wire.ask("GET", "/api/metrics/cluster/?limit=many"), 404)


async def test_nobody_is_a_public_session(wire: Wire) -> None:
    reference = wire.push("public")
    await wire.pulled(reference)
    for method, path in (
        ("GET", "/api/list/cluster/"),
        ("GET", image_path("lookup", reference)),
        ("POST", image_path("pull", reference)),
        ("GET", "/api/queue/cluster/"),
        ("GET", image_path("expire", reference)),
        ("GET", "/api/autoexpire/cluster/"),
        ("GET", "/api/metrics/cluster/"),
    ):
        check_form(await wire.public(method, path))


async def test_a_credential_is_good_once(wire: Wire) -> None:
    credential = wire.munged.credential()
    request = as_client(wire.site.url, "GET", "/api/list/cluster/", credential)
    check_form(await wire.send(request))
    replayed = await wire.send(request)
    check_form(replayed, 404)
    assert "used before" in replayed.body["error"]


@pytest.mark.parametrize("credential", ["", "MUNGE:AAAA:", "MUNGE:" + "A" * 5000 + ":", "hello"])
async def test_a_bad_credential_is_refused_and_nobody_else_is_taken(
    wire: Wire, credential: str
) -> None:
    request = as_client(wire.site.url, "GET", "/api/list/cluster/", credential)
    answer = await wire.send(request)
    check_form(answer, 404)
    assert "MUNGE" in answer.body["error"]


def locations(wire: Wire, password: str = PASSWORD) -> bytes:
    """What the client encodes for somebody who is logged in to the locked registry."""
    login = {wire.locked.host: f"{USER}:{password}"}
    return json.dumps({"authorized_locations": login}).encode()


async def test_a_private_image_does_not_exist_for_others(wire: Wire) -> None:
    """By any route, an answer is that for a reference that nobody ever pulled."""
    reference = wire.push("private", b"not for all", locked=True)

    async def ask(uid: int | None, method: str, path: str, payload: bytes = b"") -> Raw:
        credential = None if uid is None else wire.munged.credential(payload, uid=uid)
        return await wire.send(as_client(wire.site.url, method, path, credential))

    async def ready() -> bool:
        path = image_path("pull", reference)
        answer = await ask(OWNER, "POST", path, locations(wire))
        return bool(answer.body["status"] == "READY")

    await eventually(ready, within=30)
    own = await ask(OWNER, "GET", image_path("lookup", reference))
    check_form(own)
    assert (own.body["userACL"], own.body["groupACL"]) == ([OWNER], [])
    ident = own.body["id"]

    never = reference.replace(":private", ":nothere")
    for uid in (OTHER, None):
        for action in ("lookup", "expire"):
            hidden = await ask(uid, "GET", image_path(action, reference))
            absent = await ask(uid, "GET", image_path(action, never))
            assert hidden.status == absent.status
            assert hidden.content.replace(b"private", b"nothere") == absent.content
        assert (await ask(uid, "GET", f"/api/lookup/cluster/id/{ident}/")).status == 404
        for path in ("list", "queue", "metrics"):
            shown = await ask(uid, "GET", f"/api/{path}/cluster/")
            check_form(shown)
            assert b"team/app:private" not in shown.content
            assert ident.encode() not in shown.content
    for uid in (OTHER, None):
        pulled = await ask(uid, "POST", image_path("pull", reference))
        assert ident.encode() not in pulled.content, "who has no password gets nothing"

    assert b"team/app:private" in (await ask(OWNER, "GET", "/api/list/cluster/")).content
    body = f'{{"allowed_uids":"{OTHER}"}}'.encode()
    credential = wire.munged.credential(locations(wire), uid=OWNER)
    path = image_path("pull", reference)
    shared = await wire.send(as_client(wire.site.url, "POST", path, credential, body))
    assert shared.body["userACL"] == [OWNER, OTHER]

    async def seen() -> bool:
        return (await ask(OTHER, "GET", image_path("lookup", reference))).status == 200

    await eventually(seen, within=10)
    assert PASSWORD not in wire.site.log("up")


async def test_a_login_is_tried_at_once(wire: Wire) -> None:
    path = f"/api/login/cluster/{escaped(wire.locked.host)}/"

    async def ask(payload: bytes) -> Raw:
        credential = wire.munged.credential(payload, uid=OTHER)
        return await wire.send(as_client(wire.site.url, "POST", path, credential))

    good = await ask(locations(wire))
    check_form(good)
    assert good.body == {"status": True}
    wrong = await ask(locations(wire, "wrong"))
    check_form(wrong, 404)
    assert "wrong" not in wrong.body["error"]
    nothing = await ask(b"")
    check_form(nothing, 404)
    assert wire.locked.host in nothing.body["error"]
    check_form(await wire.public("POST", path), 404)
    assert PASSWORD not in wire.site.log("up")


async def test_passwords_travel_with_the_request_and_are_written_nowhere(wire: Wire) -> None:
    login = {"default": "ada:s3cr\"t'x\\:y"}
    payload = json.dumps({"authorized_locations": login}).encode()
    credential = wire.munged.credential(payload)
    answer = await wire.send(as_client(wire.site.url, "GET", "/api/list/cluster/", credential))
    check_form(answer)
    assert "s3cr" not in wire.site.log("up")
