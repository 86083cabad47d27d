"""Shifter's own client, and our drop-in for it, against a real site: each command of theirs."""

import json
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.images import Pusher, build_image, layer_of
from tests.support.munged import Munged
from tests.support.registry import DebianRegistry
from tests.support.shifter_clients import Client
from tests.support.site import Site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.root]

ROOT, ADA, BOB, CAROL = 0, 4201, 4202, 4203
USER, PASSWORD = "robot", "to:ken\"with'all\\of:it"


class World:
    """A client, and the site that it speaks to."""

    def __init__(
        self, client: Client, site: Site, registry: DebianRegistry, locked: DebianRegistry
    ) -> None:
        self.client = client
        self.site = site
        self.registry = registry
        self.locked = locked
        """Lets in only who has the password."""
        self.run = client.run

    def push(self, tag: str, *, private: bool = False) -> str:
        image = build_image([layer_of({"etc/motd": tag.encode()})])
        registry = self.locked if private else self.registry
        Pusher(registry.url, login=(USER, PASSWORD) if private else None).push(
            image, "team/app", tag
        )
        return f"{registry.host}/team/app:{tag}"

    def reference(self, tag: str) -> str:
        return f"{self.registry.host}/team/app:{tag}"


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["ours", "original"])
async def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    if os.geteuid() != 0:
        pytest.skip("needs root, for mount namespaces")
    directory = tmp_path_factory.mktemp("shifterimg")
    with (
        Munged() as munged,
        DebianRegistry(directory / "registry") as registry,
        DebianRegistry(directory / "locked", login=(USER, PASSWORD)) as locked,
    ):
        settings = {"gateway": {"munge_socket": str(munged.socket)}}
        async with Site(directory / "site", settings) as site:
            client = Client(request.param, directory / "client", munged, site.url, "cluster")
            for uid, name in ((ROOT, "root"), (ADA, "ada"), (BOB, "bob"), (CAROL, "carol")):
                client.user(uid, name)
            await site.up()
            yield World(client, site, registry, locked)


async def test_pull_then_lookup_then_images(world: World) -> None:
    reference = world.push("public")
    missing = await world.run("lookup", reference, uid=ADA)
    assert (missing.code, missing.out) == (1, "")

    pulled = await world.run("pull", reference, uid=ADA)
    assert pulled.code == 0, pulled
    assert pulled.out.endswith(f"Pulling Image: docker:{reference}, status: READY\n")

    found = await world.run("lookup", f"docker:{reference}", uid=BOB)
    ident = found.out.strip()
    assert (found.code, len(ident)) == (0, 64)
    assert (world.site.images / f"{ident}.squashfs").exists()
    assert (await world.run("lookup", f"id:{ident}")).out == found.out

    listed = await world.run("images", uid=BOB)
    assert listed.code == 0
    [line] = [line for line in listed.out.splitlines() if reference in line]
    assert line.startswith(f"cluster    docker     READY    {ident[:10]}   ")
    assert line.split()[-1] == reference


async def test_scripts_find_ready_in_what_is_verbose(world: World) -> None:
    reference = world.push("verbose")
    pulled = await world.run("-v", "pull", reference)
    assert pulled.code == 0
    assert '"status": "READY"' in pulled.out
    looked_up = await world.run("-v", "lookup", reference)
    message = looked_up.out.partition("Message: ")[2].splitlines()[0]
    assert json.loads(message)["tag"] == [reference]
    refused = await world.run("-v", "lookup", world.reference("absent"))
    assert refused.code == 1
    assert "Got response: 404\nMessage: {" in refused.out
    assert "is not READY" in refused.out


async def test_a_pull_that_fails_ends_and_says_so(world: World) -> None:
    absent = await world.run("pull", world.reference("absent"))
    assert absent.out.endswith(", status: FAILURE\n")
    # The original ends with 0 nevertheless.
    assert absent.code == (1 if world.client.name == "ours" else 0)
    verbose = await world.run("-v", "pull", world.reference("absent"))
    assert '"status_message": "' in verbose.out
    assert "absent" in verbose.out


async def test_pullnb_asks_once(world: World) -> None:
    reference = world.push("nonblocking")
    asked = await world.run("pullnb", reference)
    assert asked.code == 0
    assert f"Pulling Image: docker:{reference}, status: " in asked.out
    assert (await world.run("pull", reference)).out.endswith("status: READY\n")


async def test_expiring_is_for_whoever_pulled(world: World) -> None:
    reference = world.push("old")
    assert (await world.run("pull", reference, uid=ADA)).code == 0
    refused = await world.run("-v", "expire", reference, uid=BOB)
    assert '"status": false' in refused.out
    # The original does not look at what the gateway answers.
    assert refused.code == (1 if world.client.name == "ours" else 0)
    assert (await world.run("lookup", reference)).code == 0

    done = await world.run("-v", "expire", reference, uid=ADA)
    assert (done.code, '"status": true' in done.out) == (0, True)
    assert (await world.run("lookup", reference)).code == 1
    absent = await world.run("-v", "expire", world.reference("never-here"), uid=ADA)
    assert (absent.code, "Got response: 404" in absent.out) == (1, True)


async def test_autoexpire_is_for_administrators(world: World) -> None:
    done = await world.run("-v", "autoexpire")
    assert (done.code, '"status": []' in done.out) == (0, True)
    refused = await world.run("-v", "autoexpire", uid=ADA)
    assert '"status": false' in refused.out


async def test_a_private_image_is_for_whom_its_owner_names(world: World) -> None:
    reference = world.push("secret", private=True)
    host = world.locked.host
    refused = await world.run("pull", world.push("unseen", private=True), uid=ADA)
    assert refused.out.endswith(", status: FAILURE\n"), refused

    entered = await world.run("login", host, uid=ADA, typed=[USER, PASSWORD])
    assert entered.code == 0, entered
    assert PASSWORD not in entered.out + entered.err
    kept = world.client.home(ADA) / ".udiRoot/.cred"
    assert (kept.stat().st_mode & 0o777, kept.stat().st_uid) == (0o600, ADA)
    assert PASSWORD not in kept.read_text()

    pulled = await world.run("pull", reference, uid=ADA)
    assert pulled.out.endswith(", status: READY\n"), (pulled, world.site.log("up")[-3000:])
    ident = (await world.run("lookup", reference, uid=ADA)).out.strip()
    assert len(ident) == 64
    for asked in (("lookup", reference), ("lookup", f"id:{ident}"), ("expire", reference)):
        denied = await world.run("-v", *asked, uid=BOB)
        assert denied.code == 1, asked
        assert ident not in denied.out.replace(f"/{ident}/", "").replace(f"id {ident}", "")
    assert reference not in (await world.run("images", uid=BOB)).out
    assert reference in (await world.run("images", uid=ADA)).out

    shared = await world.run("--user", "bob", "pull", reference, uid=ADA)
    assert shared.out.endswith(", status: READY\n")
    assert (await world.run("lookup", reference, uid=BOB)).out.strip() == ident
    assert reference in (await world.run("images", uid=BOB)).out
    meta = (world.site.images / f"{ident}.meta").read_text()
    assert f"USERACL: {ADA},{BOB}\n" in meta
    assert PASSWORD not in world.site.log("up")


async def test_a_login_that_is_wrong_is_told_and_not_kept(world: World) -> None:
    if world.client.name == "original":
        pytest.skip("the original asks nobody")
    host = world.locked.host
    entered = await world.run("login", host, uid=BOB, typed=[USER, "wrong"])
    assert entered.code == 1
    assert host in entered.err
    assert not (world.client.home(BOB) / ".udiRoot").exists()


async def test_both_clients_read_each_others_logins(world: World) -> None:
    """Whoever changes from one to the other does not log in anew."""
    reference = world.push("taken-over", private=True)
    host = world.locked.host
    assert (await world.run("login", host, uid=CAROL, typed=[USER, PASSWORD])).code == 0
    other = world.client.twin()
    pulled = await other.run("pull", reference, uid=CAROL)
    assert pulled.out.endswith(", status: READY\n"), pulled
