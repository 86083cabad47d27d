"""What is somebody's own is seen by nobody else; and an event that dies is replayed."""

import re
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.support.browser import Open
from tests.support.conditions import eventually
from tests.support.dashboard import ALICE, BOB, Dashboard
from tests.support.images import Pusher
from tests.support.private_site import PASSWORD, lookup, secret_image
from tests.support.registry import DebianRegistry

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAME = "alice/secret-project"


@dataclass(frozen=True, slots=True)
class Private:
    """An image of alice's, and a pull of hers that failed."""

    image: dict[str, Any]
    failed: dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def private(dashboard: Dashboard, alices_registry: DebianRegistry) -> Private:
    Pusher(alices_registry.url, ("alice", PASSWORD)).push(secret_image(), NAME, "1")
    host = alices_registry.host
    body = {"registry": host, "username": "alice", "password": PASSWORD}
    status, told = await dashboard.ask("POST", "/logins", body, ALICE)
    assert status == 200, told
    view = await dashboard.pulled(f"{host}/{NAME}:1", ALICE)
    assert (view["state"], view["private"]) == ("READY", True), view
    failed = await dashboard.pulled(f"{host}/{NAME}:2", ALICE)
    assert (failed["state"], failed["private"]) == ("FAILURE", True), failed
    return Private(view["image"], failed)


@pytest.mark.parametrize("who", ["alice", "admin"])
async def test_a_private_image_is_visible_to_its_owner_and_to_admins(
    who: str, private: Private, dashboard: Dashboard, open_page: Open
) -> None:
    token = dashboard.token(*({"alice": [ALICE], "admin": []}[who]))
    async with open_page(token, "#/images") as seen:
        mine = seen.main.get_by_role("row").filter(has_text=f"{NAME}:1")
        await expect(mine).to_contain_text("private")
        await mine.get_by_role("link").first.click()
        await expect(seen.main.get_by_role("heading").first).to_contain_text(f"{NAME}:1")
        await seen.go("#/pulls")
        await expect(seen.main).to_contain_text(f"{NAME}:2")


@pytest.mark.parametrize("who", ["bob", "nobody"])
async def test_a_private_image_is_invisible_to_all_others(
    who: str, private: Private, dashboard: Dashboard, open_page: Open
) -> None:
    token = {"bob": dashboard.token(BOB), "nobody": None}[who]
    async with open_page(token, "#/images") as seen:
        seen.forgive("404")
        await expect(seen.main.get_by_role("heading", name="Images").first).to_be_visible()
        await expect(seen.main.get_by_text("Asking")).to_be_hidden()
        await expect(seen.main).not_to_contain_text(NAME)
        for path in ("#/pulls", "#/"):
            await seen.go(path)
            await expect(seen.main.get_by_role("heading").first).to_be_visible()
            await expect(seen.main).not_to_contain_text(NAME)
        # Nor by its address, which says no more than one that never was.
        reference = private.image["reference"]
        for path in (f"#/images/cluster/docker/{reference}", f"#/pulls/{private.failed['id']}"):
            await seen.go(path)
            await expect(seen.main).to_contain_text(re.compile("that you may see|is gone"))
            await expect(seen.main).not_to_contain_text(private.image["id"])
            await expect(seen.main).not_to_contain_text(private.failed["failure"]["message"])


async def test_a_dead_letter_is_replayed_by_an_admin(
    private: Private, dashboard: Dashboard, open_page: Open
) -> None:
    """Alice names a reader while the file system is broken; an admin mends it, and replays."""
    image = private.image
    meta = dashboard.site.images / f"{image['id']}.meta"
    kept = meta.with_suffix(".kept")
    meta.rename(kept)
    (meta / "in the way").mkdir(parents=True)
    async with open_page(dashboard.token(), "#/queues") as seen:
        path = lookup(image["reference"]).removeprefix("/api/v1")
        status, told = await dashboard.ask("PUT", f"{path}/readers", {"uids": [BOB]}, ALICE)
        assert status == 200, told
        letter = seen.main.get_by_role("row").filter(has_text="image.readers_changed")
        await expect(letter).to_contain_text("distributor.cluster")
        await expect(letter).to_contain_text("delivery_limit")
        await letter.get_by_role("button", name="Show the body").click()
        await expect(letter).to_contain_text(f"{BOB}")
        (meta / "in the way").rmdir()
        meta.rmdir()
        kept.rename(meta)
        await letter.get_by_role("button", name="Replay").click()
        await expect(letter).to_have_count(0)
        await expect(seen.main).to_contain_text("There are none")
    await eventually(lambda: f"{BOB}" in meta.read_text(), within=10)
    async with open_page(dashboard.token(BOB), "#/images") as seen:
        await expect(seen.main).to_contain_text(f"{NAME}:1")
