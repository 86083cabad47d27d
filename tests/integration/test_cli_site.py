"""The `dray` command against a whole site: owners, private images, jobs, usage, doctor."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.conditions import eventually
from tests.support.images import File, Pusher, build_image, layer_of
from tests.support.registry import DebianRegistry
from tests.support.site import Site
from tests.support.users import let_everybody_in, ordinary_environment, ordinary_python

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALICE, BOB = 61001, 61002
PASSWORD = "s3cret:with \"quotes' and \\ more"
DRAY = "import sys; sys.argv[0] = 'dray'; from cli.main import main; main()"


@dataclass(frozen=True, slots=True)
class Ran:
    """What one command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Somebody:
    """A user with a terminal's commands, through the gateway's socket."""

    site: Site
    uid: int | None = None

    async def dray(self, *arguments: str, given: str = "") -> Ran:
        env = {name: value for name, value in ordinary_environment().items() if "DRAY_" not in name}
        env |= {"DRAY_URL": f"unix://{self.site.socket}", "HOME": "/nonexistent"}
        other: dict[str, Any] = {}
        if self.uid is not None:
            other = {"user": self.uid, "group": self.uid, "extra_groups": ()}
        process = await asyncio.create_subprocess_exec(
            ordinary_python(), "-c", DRAY, *arguments,
            env=env, stdin=-1, stdout=-1, stderr=-1, cwd="/", start_new_session=True, **other,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate(given.encode())
        assert process.returncode is not None
        assert "Traceback" not in err.decode()
        return Ran(process.returncode, out.decode(), err.decode())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    with DebianRegistry(tmp_path_factory.mktemp("registry")) as registry:
        for name in ("team/app", "team/other"):
            image = build_image([layer_of({"etc/motd": File(name.encode())})])
            Pusher(registry.url).push(image, name, "1")
        yield registry


@pytest.fixture(scope="module")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRegistry]:
    login = ("alice", PASSWORD)
    with DebianRegistry(tmp_path_factory.mktemp("closed"), login=login) as registry:
        image = build_image([layer_of({"secret": File(b"alice's own")})])
        Pusher(registry.url, login).push(image, "alice/app", "1")
        yield registry


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    let_everybody_in(directory)
    settings = {"usage": {"flush_interval": 0.1}}
    async with Site(directory / "s", settings) as site:
        await site.up()
        yield site


@pytest.fixture
def me(site: Site) -> Somebody:
    return Somebody(site)


async def test_an_image_s_life_from_pull_to_rm(me: Somebody, registry: DebianRegistry) -> None:
    reference = f"{registry.host}/team/other:1"
    assert (await me.dray("pull", reference)).code == 0
    assert reference in (await me.dray("images", "-q")).out.splitlines()
    found = (await me.dray("lookup", "--json", reference)).json
    assert (await me.dray("lookup", "-q", reference)).out == f"{found['id']}\n"
    assert "stays on cluster" in (await me.dray("pin", reference)).out
    assert (await me.dray("unpin", "--json", found["id"])).json["items"][0]["pinned"] is False
    removed = await me.dray("rm", reference)
    assert removed.code == 0, removed.err
    assert removed.out.startswith(f"{reference} is gone from cluster.\n")
    assert (await me.dray("lookup", reference)).code == 1
    never = await me.dray("rm", reference, f"{registry.host}/team/never:1")
    assert never.code == 1
    assert never.err.endswith("[not_found]\n")
    assert (await me.dray("pull", reference)).code == 0


async def test_who_i_am_and_what_i_have(me: Somebody) -> None:
    who = (await me.dray("whoami", "--json")).json
    assert (who["uid"], who["via"]) == (os.getuid(), "socket")
    assert (await me.dray("quota", "--json")).json["items"][0]["system"] == "cluster"
    assert "YOUR IMAGES" in (await me.dray("quota")).out
    assert (await me.dray("expire")).out.endswith("stay for jobs.\n")


async def test_use_is_counted_by_image_user_and_day(me: Somebody, registry: DebianRegistry) -> None:
    reference = f"{registry.host}/team/app:1"
    assert (await me.dray("pull", reference)).code == 0
    assert (await me.dray("lookup", reference)).code == 0

    async def counted() -> bool:
        lines = (await me.dray("usage", "--image", reference, "--json")).json["items"]
        return bool(lines) and lines[0]["lookups"] >= 1 and lines[0]["pulls"] >= 1

    await eventually(counted, within=30)
    assert reference in (await me.dray("usage", "--since", "1d")).out
    for by in ("user", "day", "hour"):
        assert (await me.dray("usage", "--by", by, "--no-header")).out


async def test_jobs_are_listed_with_their_nodes(
    me: Somebody, site: Site, registry: DebianRegistry
) -> None:
    reference = f"{registry.host}/team/app:1"
    assert (await me.dray("pull", reference)).code == 0
    body = {"job_id": "4711", "images": [reference], "nodes": ["node1"], "uid": os.getuid()}
    status, view = await site.ask("POST", "/api/v1/jobs", body)
    assert status == 202, view

    async def staged() -> bool:
        return "1 staged" in (await me.dray("jobs", "4711", "--wait", "--timeout", "5")).out

    await eventually(staged, within=30)
    listed = (await me.dray("jobs", "--no-header", "--running")).out.split()
    assert (listed[0], listed[2], listed[4:6]) == ("4711", "cluster", ["node1", "1/1"])
    nodes = (await me.dray("jobs", "4711", "--all-nodes", "--json")).json["nodes"]
    assert [(node["node"], node["state"]) for node in nodes] == [("node1", "STAGED")]
    assert (await me.dray("jobs", "absent")).code == 1


async def test_the_doctor_finds_nothing_broken(me: Somebody, site: Site) -> None:
    socket = site.directory / "data/agent/agent.sock"
    config = site.directory / "site.json"

    async def heard() -> bool:
        return bool((await me.dray("nodes", "--json")).json["items"])

    await eventually(heard, within=30)
    told = await me.dray("doctor", "--socket", str(socket), "--config", str(config), "--json")
    found = {each["about"]: each for each in json.loads(told.out)["items"]}
    # Whether namespaces may be made is this machine's affair.
    assert {about for about, each in found.items() if each["verdict"] == "broken"} <= {
        "namespaces"
    }, found
    for about in ("gateway", "version", "identity", "systems", "agent", "settings", "store"):
        assert found[about]["verdict"] == "ok", found[about]
    assert "node1 of cluster" in found["agent"]["text"]


@pytest.mark.root
async def test_a_private_image_is_shared_with_whom_its_owner_names(
    site: Site, closed_registry: DebianRegistry
) -> None:
    alice, bob = Somebody(site, ALICE), Somebody(site, BOB)
    reference, host = f"{closed_registry.host}/alice/app:1", closed_registry.host
    refused = await alice.dray("login", host, "-u", "alice", "--password-stdin", given="wrong\n")
    assert (refused.code, refused.err.rpartition("[")[2]) == (1, "login_refused]\n")
    let_in = await alice.dray(
        "login", host, "-u", "alice", "--password-stdin", given=f"{PASSWORD}\n"
    )
    assert let_in.out.startswith(f"{host} takes alice")
    assert (await alice.dray("logins", "-q")).out == f"{host}\n"
    pulled = await alice.dray("pull", reference)
    assert pulled.code == 0, pulled.err
    assert "  private, id " in pulled.out
    assert (await bob.dray("lookup", reference)).code == 1
    assert (await bob.dray("images", "-q")).out.count(reference) == 0

    shared = await alice.dray("share", reference, "--user", str(BOB))
    assert shared.out == f"users       {BOB}\ngroups      nobody\n"
    assert (await bob.dray("lookup", reference)).code == 0
    assert "private" in (await bob.dray("images")).out
    assert (await bob.dray("rm", reference)).code == 1
    await alice.dray("share", reference, "--nobody")
    assert (await bob.dray("lookup", reference)).code == 1

    again = await alice.dray("pull", reference, "--user", str(BOB))
    assert again.code == 0, again.err
    assert (await bob.dray("lookup", reference)).code == 0
    assert (await alice.dray("logout", host)).code == 0
    assert (await alice.dray("logins", "-q")).out == ""
    assert (await alice.dray("rm", reference)).code == 0


async def test_completion_offers_what_is_ready(me: Somebody, registry: DebianRegistry) -> None:
    reference = f"{registry.host}/team/app:1"
    assert (await me.dray("pull", reference)).code == 0

    async def offered() -> bool:
        return reference in (await me.dray("suggest", "references", reference[:12])).out.split()

    await eventually(offered, within=30)  # half a second may be too little on a busy machine
    assert "cluster" in (await me.dray("suggest", "systems")).out


async def test_several_gateways_are_tried_in_turn(me: Somebody) -> None:
    url = f"http://127.0.0.1:1,unix://{me.site.socket}"
    assert (await me.dray("images", "--url", url)).code == 0
    broken = await me.dray("doctor", "--url", url)
    assert broken.code == 1
    assert "broken  gateway      http://127.0.0.1:1 does not answer" in broken.out


async def test_the_dashboard_s_link_signs_its_user_in(site: Site, me: Somebody) -> None:
    made = await me.dray("dashboard", "--at", site.url, "--expires", "10m")
    assert made.code == 0, made.err
    base, token = made.out.strip().split("/#token=")
    assert base == site.url
    assert "admin" in made.err
    headers = {"Authorization": f"Bearer {token}"}
    who_is = f"{site.url}/api/v1/whoami"
    async with aiohttp.ClientSession() as network, network.get(who_is, headers=headers) as response:
        status, who = response.status, await response.json()
    assert (status, who["scopes"][-1]) == (200, "admin")
    readable = await me.dray("dashboard", "--at", "http://dray.example.org")
    assert (readable.code, "https://" in readable.err) == (2, True)
    elsewhere = await me.dray("dashboard", "--at", "http://127.0.0.1:1", "--json")
    assert "not reached" in elsewhere.err
    assert elsewhere.json["url"].startswith("http://127.0.0.1:1/#token=")


async def test_top_shows_the_site(me: Somebody) -> None:
    shown = await me.dray("top")
    assert shown.code == 0, shown.err
    assert "queues" in shown.out
    assert (await me.dray("top", "--json")).json["queues"] is not None
