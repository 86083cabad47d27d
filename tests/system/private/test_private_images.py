"""Private images in a whole site: whoever may not have one finds nothing of it, by any route."""

import subprocess
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.as_user import Somebody
from tests.support.conditions import eventually
from tests.support.images import BuiltImage, File, Pusher, build_image, layer_of
from tests.support.private_site import (
    ALICE,
    BOB,
    CAROL,
    CAROLS,
    PASSWORD,
    READY,
    TEAM,
    log_in,
    lookup,
    pull,
    pulled_by_alice,
    push,
    secret_image,
)
from tests.support.registry import DebianRegistry
from tests.support.site import Site

pytestmark = pytest.mark.root


async def test_others_find_nothing_by_any_route(
    site: Site, registry: DebianRegistry, alice: Somebody, bob: Somebody
) -> None:
    mine = await pulled_by_alice(site, alice, registry)
    reference, image = mine["reference"], mine["image"]["id"]
    assert (await alice.ask("GET", lookup(reference)))[0] == 200
    never = f"{registry.host}/alice/nothing:1"
    attempts = [
        # Each beside the same for what does not exist.
        ("GET", lookup(reference), lookup(never), None),
        ("GET", lookup(reference) + "?sharing=true", lookup(never) + "?sharing=true", None),
        (
            "GET",
            f"/api/v1/images/cluster/id/{image}",
            f"/api/v1/images/cluster/id/{'0' * 64}",
            None,
        ),
        ("GET", f"/api/v1/pulls/{mine['id']}", "/api/v1/pulls/" + "0" * 32, None),
        ("GET", f"/api/v1/pulls/{mine['id']}/events", f"/api/v1/pulls/{'0' * 32}/events", None),
        ("GET", lookup(reference) + "/readers", lookup(never) + "/readers", None),
        ("PUT", lookup(reference) + "/readers", lookup(never) + "/readers", {"uids": [BOB]}),
        ("DELETE", lookup(reference), lookup(never), None),
        ("PUT", lookup(reference) + "/pin", lookup(never) + "/pin", None),
    ]
    for method, there, absent, body in attempts:
        status, text = await bob.raw(method, there, body)
        other_status, other = await bob.raw(method, absent, body)
        assert status == other_status >= 400, (method, there, text)
        for name, stand_in in ((reference, never), (image, "0" * 64), (mine["id"], "0" * 32)):
            for form in (name, quote(name, safe=""), name.replace(":", "%3A")):
                shape = quote(stand_in, safe="") if form != name else stand_in
                text = text.replace(form, shape)
        assert text == other, (method, there)
    for shown in ("/api/v1/images", "/api/v1/queue"):
        status, view = await bob.ask("GET", shown)
        assert (status, view["items"]) == (200, []), shown


def listed_by(uid: int, path: str) -> str | None:
    """What a user sees in a directory; None: he may not."""
    done = subprocess.run(
        ["/bin/ls", path],
        user=uid,
        group=uid,
        extra_groups=(TEAM,),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


def read_by(uid: int, path: Path) -> bool:
    command = ["/bin/cat", str(path)]
    done = subprocess.run(
        command, user=uid, group=uid, extra_groups=(TEAM,), capture_output=True, check=False
    )
    return done.returncode == 0


async def test_nothing_of_it_can_be_mounted_by_others(
    site: Site, registry: DebianRegistry, alice: Somebody, bob: Somebody
) -> None:
    mine = await pulled_by_alice(site, alice, registry)
    image = mine["image"]
    wanted = {
        "job_id": "j",
        "image_id": image["id"],
        "content_digest": image["content_digest"],
        "size": image["size"],
    }
    socket = site.directory / "data" / "agent" / "agent.sock"
    async with Somebody(socket, BOB, TEAM) as on_node, Somebody(socket, ALICE) as owner:
        status, refused = await on_node.ask("POST", "/v1/mounts", wanted)
        assert (status, refused["code"]) == (404, "image_not_placed")
        status, view = await owner.ask("POST", "/v1/mounts", wanted)
        assert status == 200, view
        assert listed_by(ALICE, view["path"]) == "more\nsecret\n"
        assert listed_by(BOB, view["path"]) is None
        _, shown = await on_node.ask("GET", "/v1/status")
        assert image["id"] not in str(shown)
        # Not even by the job of another.
        status, refused = await on_node.ask("POST", "/v1/mounts", wanted)
        assert (status, refused["code"]) == (404, "image_not_placed")
        assert (await owner.ask("DELETE", "/v1/jobs/j"))[0] == 204
    for path in site.images.glob(f"{image['id']}.*"):
        assert path.stat().st_mode & 0o077 == 0, path
    meta = (site.images / f"{image['id']}.meta").read_text()
    assert f"USERACL: {ALICE}\n" in meta
    # Nor read from the packs that it was made of, or seen by its name, size and time.
    for directory in (site.store, site.images):
        assert listed_by(BOB, str(directory)) is None, directory
    assert not read_by(BOB, next(site.store.glob("packs/*/*.pack")))


async def test_a_job_gets_what_its_user_may_have(
    site: Site, registry: DebianRegistry, alice: Somebody
) -> None:
    mine = await pulled_by_alice(site, alice, registry)
    for number, name in enumerate((mine["image"]["id"], mine["reference"])):
        job = {"job_id": f"7{number}", "images": [name], "nodes": ["node1"]}
        for uid, wanted in ((BOB, 404), (None, 404), (ALICE, 202)):
            status, view = await site.ask("POST", "/api/v1/jobs", {**job, "uid": uid})
            assert status == wanted, (uid, name, view)


async def test_a_group_may_be_let_in_and_put_out_again(
    site: Site, registry: DebianRegistry, alice: Somebody, bob: Somebody
) -> None:
    reference = push(registry, secret_image())
    await log_in(alice, registry.host, "alice", PASSWORD)
    mine = await pull(alice, reference, allowed_gids=[TEAM])
    assert mine["state"] == READY, mine["failure"]
    status, found = await bob.ask("GET", lookup(reference))
    assert (status, found["id"]) == (200, mine["image"]["id"])
    _, page = await bob.ask("GET", "/api/v1/images")
    assert [each["id"] for each in page["items"]] == [found["id"]]
    sidecar = site.images / f"{found['id']}.meta"
    await eventually(lambda: f"GROUPACL: {TEAM}\n" in sidecar.read_text(), within=10)

    status, view = await alice.ask("PUT", lookup(reference) + "/readers", {"uids": [], "gids": []})
    assert (status, view["gids"], view["warning"]) == (200, [], None)
    assert (await bob.ask("GET", lookup(reference)))[0] == 404
    await eventually(lambda: "GROUPACL" not in sidecar.read_text(), within=10)


async def test_two_owners_share_bytes_and_each_has_asked_the_registry(
    site: Site, registry: DebianRegistry, alice: Somebody, bob: Somebody, carol: Somebody
) -> None:
    mine = await pulled_by_alice(site, alice, registry)
    packs = {path: path.stat().st_ino for path in site.store.rglob("*.pack")}
    await log_in(carol, registry.host, "carol", CAROLS)
    hers = await pull(carol, mine["reference"])
    assert (hers["state"], hers["private"]) == (READY, True), hers["failure"]
    assert hers["image"]["id"] == mine["image"]["id"]
    assert {path: path.stat().st_ino for path in site.store.rglob("*.pack")} == packs
    sidecar = site.images / f"{hers['image']['id']}.meta"
    await eventually(lambda: f"USERACL: {ALICE},{CAROL}\n" in sidecar.read_text(), within=10)
    assert (await bob.ask("GET", lookup(mine["reference"])))[0] == 404


def lie_about(image: BuiltImage) -> BuiltImage:
    """A manifest that claims the layers of another image, with blobs of its own."""
    junk = layer_of({"junk": File(b"anything")})
    return build_image([replace(junk, diff_id=layer.diff_id) for layer in image.layers])


async def test_knowing_digests_is_not_having_the_layers(
    site: Site,
    registry: DebianRegistry,
    alice: Somebody,
    bob: Somebody,
    carol: Somebody,
    tmp_path: Path,
) -> None:
    image = secret_image()
    reference = push(registry, image)
    await log_in(alice, registry.host, "alice", PASSWORD)
    assert (await pull(alice, reference))["state"] == READY
    packs = {path: path.stat().st_ino for path in site.store.rglob("*.pack")}
    with DebianRegistry(tmp_path / "bobs") as own:
        Pusher(own.url).push(lie_about(image), "bob/lie", "1")
        lie = await pull(bob, f"{own.host}/bob/lie:1")
        assert (lie["state"], lie["image"]) == ("FAILURE", None)
        assert "diff id" in lie["failure"]["message"]
    # Nor for somebody who may use the same registry.
    await log_in(carol, registry.host, "carol", CAROLS)
    Pusher(registry.url, ("carol", CAROLS)).push(lie_about(image), "carol/lie", "1")
    lie = await pull(carol, f"{registry.host}/carol/lie:1")
    assert (lie["state"], lie["image"]) == ("FAILURE", None)
    assert "diff id" in lie["failure"]["message"]
    assert {path: path.stat().st_ino for path in site.store.rglob("*.pack")} == packs
    assert not list((site.store / "proofs").iterdir())


async def test_an_image_that_everybody_may_have_is_everybodys(
    site: Site, alice: Somebody, bob: Somebody, tmp_path: Path
) -> None:
    # Over the wire of MUNGE credentials would come along; here a login is kept for the registry.
    login = ("alice", PASSWORD)
    with DebianRegistry(tmp_path / "hub", login=login) as hub:
        await log_in(alice, hub.host, "alice", PASSWORD)
        image = secret_image("nothing secret")
        Pusher(hub.url, login).push(image, "team/tool", "1")
        hub.stop()
        hub.logins.clear()
        hub.start()
        reference = f"{hub.host}/team/tool:1"
        view = await pull(alice, reference, allowed_uids=[BOB])
        assert (view["state"], view["private"]) == (READY, False), view["failure"]
        assert "no effect" in view["warning"]

    async def theirs() -> bool:
        # The site's record follows its owner's.
        return bool((await bob.ask("GET", "/api/v1/images"))[1]["items"])

    await eventually(theirs, within=10)
    for user in (alice, bob):
        status, found = await user.ask("GET", lookup(reference))
        assert (status, found["id"], found["private"]) == (200, view["image"]["id"], False)
        _, page = await user.ask("GET", "/api/v1/images")
        assert [each["id"] for each in page["items"]] == [found["id"]]
    assert (site.images / f"{found['id']}.squashfs").stat().st_mode & 0o777 == 0o644
