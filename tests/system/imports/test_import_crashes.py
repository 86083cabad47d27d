"""What dies in the middle of an import costs time, and nothing else."""

from pathlib import Path

import pytest

from tests.support.as_user import Somebody
from tests.support.conditions import eventually
from tests.support.images import File, build_image, layer_of
from tests.support.imports import IMPORTS, brought, docker_archive, lookup
from tests.support.noise import noise
from tests.support.private_site import ALICE, TEAM
from tests.support.site import Site
from tests.support.users import let_everybody_in

pytestmark = pytest.mark.root

NAME = "load_test:v1"
SETTINGS = {"imports": {"allow": [str(ALICE), f"@{TEAM}"]}}


def large(home: Path, name: str = "app.tar") -> Path:
    """So large that it is met on its way."""
    image = build_image([layer_of({f"f{at}": File(noise(24 << 20))}) for at in range(3)])
    return docker_archive(home / name, image, ALICE)


def processes_of(uid: int) -> list[str]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if directory.stat().st_uid in {uid, 0} and _real_uid(directory) == uid:
                found.append((directory / "cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _real_uid(directory: Path) -> int:
    for line in (directory / "status").read_text().splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[1])
    return -1


async def test_a_killed_dray_up_costs_no_import(tmp_path: Path, home: Path) -> None:
    let_everybody_in(tmp_path)
    async with Site(tmp_path / "site", SETTINGS) as site:
        await site.up()
        async with Somebody(site.socket, ALICE) as alice:
            body = {"name": NAME, "path": str(large(home))}
            status, view = await alice.ask("POST", IMPORTS, body)
            assert status == 202, view
        await site.reached(view["id"], "PULLING")
        site.kill("up")
        await eventually(lambda: not processes_of(ALICE), within=15)
        await site.up()
        ended = await site.reached(view["id"], "READY", "FAILURE", within=60)
        assert ended["state"] == "READY", ended["failure"]
        assert site.check_images() == 1
        await eventually(lambda: not site.leftovers(), within=10)
        async with Somebody(site.socket, ALICE) as alice:
            assert (await alice.ask("GET", lookup(NAME)))[0] == 200


async def test_another_file_waits_for_its_turn_and_the_same_joins(
    site: Site, alice: Somebody, home: Path
) -> None:
    path, other = large(home), large(home, "other.tar")
    status, first = await alice.ask("POST", IMPORTS, {"name": NAME, "path": str(path)})
    assert status == 202, first
    status, joined = await alice.ask("POST", IMPORTS, {"name": NAME, "path": str(path)})
    assert (status, joined["id"]) == (202, first["id"])
    status, refused = await alice.ask("POST", IMPORTS, {"name": NAME, "path": str(other)})
    assert (status, refused["code"]) == (409, "import_under_way")
    ended = await site.reached(first["id"], "READY", "FAILURE", within=60)
    assert ended["state"] == "READY", ended["failure"]
    assert not processes_of(ALICE)


async def test_what_is_no_file_of_hers_is_refused(alice: Somebody, home: Path) -> None:
    nothing = home / "nothing.tar"
    nothing.write_bytes(b"")
    nothing.chmod(0o644)
    for path, code in (
        (home / "absent.tar", "archive_not_found"),
        (nothing, "archive_invalid"),
        (Path("/dev/zero"), "archive_invalid"),
        (Path("/proc/self/status"), "import_place_not_allowed"),
        (Path("/etc/shadow"), "archive_not_found"),
    ):
        view = await brought(alice, "odd:1", path)
        assert (view["state"], view["failure"]["code"]) == ("FAILURE", code), view["failure"]
