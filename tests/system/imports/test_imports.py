"""Imports in a whole site: users bring files that only they can read."""

import shutil
import subprocess
import tarfile
from gzip import compress
from pathlib import Path
from typing import Any

import pytest

from tests.support.as_user import Somebody
from tests.support.images import File, build_image, layer_of
from tests.support.imports import (
    IMPORTS,
    brought,
    docker_archive,
    lookup,
    oci_layout,
    owned,
    settled,
)
from tests.support.noise import noise
from tests.support.private_site import ALICE, BOB, secret_image
from tests.support.site import Site

pytestmark = pytest.mark.root

NAME = "load_test:v1"


@pytest.mark.parametrize("make", [docker_archive, oci_layout])
async def test_what_only_its_user_can_read_becomes_ready(
    site: Site, alice: Somebody, bob: Somebody, home: Path, make: Any
) -> None:
    path = make(home / "app", secret_image(), ALICE)
    view = await brought(alice, NAME, path)
    assert view["state"] == "READY", view["failure"]
    assert (view["type"], view["reference"], view["private"]) == ("custom", f"custom:{NAME}", True)
    status, found = await alice.ask("GET", lookup(NAME))
    assert (status, found["id"]) == (200, view["image"]["id"])
    assert site.check_images() == 1
    assert site.leftovers() == []
    # To others it is as if there were nothing.
    status, gone = await bob.ask("GET", lookup(NAME))
    _, never = await bob.ask("GET", lookup("never:v1"))
    assert (status, gone["detail"]) == (404, never["detail"].replace("never", "load_test"))
    for there in ("/api/v1/images", "/api/v1/queue"):
        assert (await bob.ask("GET", there))[1]["items"] == []
    assert (await bob.ask("GET", f"/api/v1/pulls/{view['id']}"))[0] == 404
    assert (await bob.ask("DELETE", lookup(NAME)))[0] == 404


async def test_a_file_of_another_user_is_not_imported(
    alice: Somebody, bob: Somebody, home: Path, site: Site
) -> None:
    path = docker_archive(home / "app.tar", secret_image(), ALICE)
    assert (await brought(alice, NAME, path))["state"] == "READY"
    view = await brought(bob, "mine:1", path)
    assert (view["state"], view["failure"]["code"]) == ("FAILURE", "archive_not_found")
    assert "Permission denied" in view["failure"]["message"]
    assert site.check_images() == 1


async def test_an_archive_that_only_names_a_layer_of_another_does_not_get_it(
    alice: Somebody, bob: Somebody, home: Path
) -> None:
    image = secret_image()
    path = docker_archive(home / "app.tar", image, ALICE)
    assert (await brought(alice, NAME, path))["state"] == "READY"
    # All of it is as it was, but for what is in the layer.
    forged = bytearray(path.read_bytes())
    [layer] = image.layers
    at = bytes(forged).index(layer.blob)
    forged[at : at + len(layer.blob)] = bytes(len(layer.blob))
    stolen = home / "stolen.tar"
    stolen.write_bytes(forged)
    stolen.chmod(0o644)
    view = await brought(bob, "stolen:1", stolen)
    assert view["state"] == "FAILURE"
    assert (await bob.ask("GET", lookup("stolen:1")))[0] == 404
    # Who has the layer may have the image, and finds what is there.
    path.chmod(0o644)
    mine = await brought(bob, "mine:1", path)
    assert mine["state"] == "READY", mine["failure"]


async def test_the_same_file_again_is_ready_at_once_and_a_changed_one_replaces_it(
    alice: Somebody, home: Path
) -> None:
    path = docker_archive(home / "app.tar", secret_image("first"), ALICE)
    await settled(path)
    first = await brought(alice, NAME, path)
    status, again = await alice.ask("POST", IMPORTS, {"name": NAME, "path": str(path)})
    assert (status, again["state"]) == (200, "READY")
    assert again["image"]["ready_at"] == first["image"]["ready_at"]
    docker_archive(path, secret_image("other"), ALICE)
    other = await brought(alice, NAME, path)
    assert other["state"] == "READY", other["failure"]
    assert other["image"]["id"] != first["image"]["id"]
    # Whoever had looked up what it was can still use it.
    before = await alice.ask("GET", f"/api/v1/images/cluster/id/{first['image']['id']}")
    assert before[0] == 200


async def test_a_file_that_is_gone_leaves_what_it_became(alice: Somebody, home: Path) -> None:
    path = docker_archive(home / "app.tar", secret_image(), ALICE)
    await settled(path)
    first = await brought(alice, NAME, path)
    path.unlink()
    view = await brought(alice, NAME, path)
    assert (view["state"], view["failure"]["code"]) == ("FAILURE", "archive_not_found")
    status, found = await alice.ask("GET", lookup(NAME))
    assert (status, found["id"]) == (200, first["image"]["id"])


async def test_it_is_shared_pinned_and_removed_like_any_other(
    alice: Somebody, bob: Somebody, home: Path, site: Site
) -> None:
    path = docker_archive(home / "app.tar", secret_image(), ALICE)
    view = await brought(alice, NAME, path, allowed_uids=[BOB])
    assert (await bob.ask("GET", lookup(NAME)))[1]["id"] == view["image"]["id"]
    status, shown = await alice.ask("GET", f"{lookup(NAME)}/readers")
    assert (status, shown["uids"]) == (200, [BOB])
    assert (await alice.ask("PUT", f"{lookup(NAME)}/pin"))[0] == 200
    for uid, wanted in ((ALICE, 202), (BOB, 202), (None, 404)):
        job = {"job_id": f"7{uid}", "images": [f"custom:{NAME}"], "nodes": ["node1"], "uid": uid}
        status, told = await site.ask("POST", "/api/v1/jobs", job)
        assert status == wanted, told
    assert (await bob.ask("DELETE", lookup(NAME)))[0] == 403
    status, removed = await alice.ask("DELETE", lookup(NAME))
    assert (status, removed["items"][0]["reference"]) == (202, f"custom:{NAME}")
    assert (await alice.ask("GET", lookup(NAME)))[0] == 404


async def test_a_pull_finds_what_was_imported_for_a_job_that_names_it_beside_others(
    alice: Somebody, bob: Somebody, home: Path, site: Site
) -> None:
    wanted: dict[str, Any] = {"reference": f"custom:{NAME}"}
    status, absent = await alice.ask("POST", "/api/v1/pulls", wanted)
    assert (status, absent["code"]) == (404, "not_found")
    assert "import it first: dray import" in absent["detail"]
    view = await brought(alice, NAME, docker_archive(home / "app.tar", secret_image(), ALICE))
    status, found = await alice.ask("POST", "/api/v1/pulls", wanted)
    assert (status, found["state"], found["image"]) == (200, "READY", view["image"])
    # As the burst buffer asks, which holds a job that is refused.
    status, staged = await site.ask("POST", "/api/v1/pulls", {**wanted, "uid": ALICE})
    assert (status, staged["image"]["id"]) == (200, view["image"]["id"])
    status, others = await site.ask("POST", "/api/v1/pulls", {**wanted, "uid": BOB})
    assert (status, others) == (404, {**absent, "instance": others["instance"]})
    assert (await bob.ask("POST", "/api/v1/pulls", wanted))[0] == 404
    forced = await alice.ask("POST", "/api/v1/pulls", {**wanted, "force": True})
    assert (forced[0], forced[1]["code"]) == (400, "invalid_input")


async def test_a_published_one_is_everybodys_and_its_name_stays_the_publishers(
    site: Site, alice: Somebody, bob: Somebody, carol: Somebody, home: Path
) -> None:
    path = docker_archive(home / "app.tar", secret_image(), ALICE)
    view = await brought(alice, NAME, path, public=True)
    assert (view["state"], view["private"]) == ("READY", False)
    assert (await carol.ask("GET", lookup(NAME)))[1]["id"] == view["image"]["id"]
    body = {"name": NAME, "path": str(path), "public": True}
    status, refused = await bob.ask("POST", IMPORTS, body)
    assert (status, refused["code"]) == (403, "import_not_allowed")
    assert "imports.allow_public" in refused["detail"]
    # A private image of the same name is one's own, and nobody else's.
    path.chmod(0o644)
    mine = await brought(bob, NAME, path)
    assert (mine["state"], mine["private"]) == ("READY", True)
    assert (await carol.ask("GET", lookup(NAME)))[1]["private"] is False


async def test_who_is_not_named_does_not_import(carol: Somebody, site: Site, home: Path) -> None:
    body = {"name": NAME, "path": str(home / "app.tar")}
    status, refused = await carol.ask("POST", IMPORTS, body)
    assert (status, refused["code"]) == (403, "import_not_allowed")
    assert "imports.allow of the settings" in refused["detail"]
    # Nor a service account, which has no files; nor root, as whom this site runs.
    status, refused = await site.ask("POST", IMPORTS, body)
    assert (status, refused["code"]) == (403, "import_not_allowed")


async def test_compressed_and_of_several_layers(alice: Somebody, home: Path, site: Site) -> None:
    image = build_image([layer_of({f"d{at}/f": File(b"x" * 50_000 * at)}) for at in range(1, 4)])
    path = docker_archive(home / "app.tar", image, ALICE)
    path.write_bytes(compress(path.read_bytes()))
    view = await brought(alice, "group/tool", path, format="docker-archive", image="some/app:1")
    assert view["state"] == "READY", view["failure"]
    assert view["reference"] == "custom:group/tool:latest"
    assert site.check_images() == 1


def root_file_system(home: Path, kind: str) -> Path:
    """In a file or a tree that only alice can read."""
    tree = home / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "motd").write_text("hello")
    (tree / "data").write_bytes(noise(300_000))
    path = {"dir": tree, "tar": home / "root.tar", "squashfs": home / "root.squashfs"}[kind]
    if kind == "tar":
        with tarfile.open(path, "w") as tar:
            tar.add(tree, ".")
    if kind == "squashfs":
        if shutil.which("mksquashfs") is None:
            pytest.skip("needs mksquashfs: install Debian's package squashfs-tools")
        subprocess.run(["mksquashfs", tree, path, "-quiet", "-no-progress"], check=True)
    for each in (path, *tree.rglob("*")):
        owned(each, ALICE)
    return path


@pytest.mark.parametrize("kind", ["tar", "dir", "squashfs"])
async def test_a_root_file_system_is_imported_by_who_may_read_it(
    site: Site, alice: Somebody, bob: Somebody, home: Path, kind: str
) -> None:
    path = root_file_system(home, kind)
    view = await brought(alice, NAME, path, format=kind)
    assert view["state"] == "READY", view["failure"]
    assert site.check_images() == 1
    refused = await brought(bob, NAME, path, format=kind)
    assert "Permission denied" in refused["failure"]["message"]
    again = await brought(alice, NAME, path, format=kind)
    assert again["image"]["id"] == view["image"]["id"]


async def test_a_tree_with_files_of_another_user_is_refused_as_a_whole(
    site: Site, alice: Somebody, home: Path
) -> None:
    path = root_file_system(home, "dir")
    owned(path / "etc" / "motd", 0)
    view = await brought(alice, NAME, path, format="dir")
    assert (view["state"], view["failure"]["code"]) == ("FAILURE", "tree_unreadable")
    assert "etc/motd" in view["failure"]["message"]
    assert site.check_images() == 0
