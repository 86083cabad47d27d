"""Pulls as they are watched: how far one is, that it is ready, or why it never will be."""

import asyncio
import re

import pytest
from playwright.async_api import Locator, expect

from tests.support.browser import Open, Watched
from tests.support.dashboard import ALICE, Dashboard
from tests.support.gate import Gate
from tests.support.images import BuiltImage, File, Pusher, build_image, layer_of
from tests.support.lying_registry import Saying, lying_registry
from tests.support.noise import noise
from tests.support.registry import DebianRegistry

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 1 << 20


def image_of(text: str) -> BuiltImage:
    return build_image([layer_of({text: File(noise(2 * MIB))})])


def row(seen: Watched, text: str) -> Locator:
    return seen.main.get_by_role("row").filter(has_text=text)


async def test_a_pull_is_watched_from_init_to_ready(
    dashboard: Dashboard, open_page: Open, registry: DebianRegistry
) -> None:
    """Two pages, and no reload: the list of all, and the page of this one."""
    for name in ("first", "watched"):
        Pusher(registry.url).push(image_of(name), name, "1")
    async with (
        Gate(registry.port) as first,
        Gate(registry.port) as gate,
        open_page(dashboard.token(), "#/pulls") as all_pulls,
        open_page(dashboard.token(ALICE)) as one,
    ):
        first.hold_after(0)
        gate.hold_after(MIB)
        # The site's one converter is busy with another.
        await dashboard.pull(f"{first.host}/first:1")
        asked = await dashboard.pull(f"{gate.host}/watched:1", ALICE)
        await one.go(f"#/pulls/{asked['id']}")
        state = one.main.locator(".state").first
        await expect(state).to_have_text("INIT")
        mine = row(all_pulls, "watched:1")
        await expect(mine).to_contain_text("INIT")
        await expect(mine).to_contain_text(str(ALICE))
        first.open()
        await expect(state).to_have_text("PULLING")
        await expect(mine).to_contain_text("PULLING")
        bar = one.main.get_by_role("progressbar").first
        await expect(bar).to_have_attribute("aria-valuenow", _between(10, 90))
        await expect(mine.get_by_role("progressbar")).to_have_attribute(
            "aria-valuenow", _between(10, 90)
        )
        await expect(mine).to_contain_text("of 2.")  # MB
        gate.open()
        await expect(state).to_have_text("READY")
        await expect(mine).to_have_count(0)
        line = one.main.get_by_role("region", name="Time line").get_by_role("rowgroup").last
        for word in ("INIT", "PULLING", "TRANSFER", "READY"):
            await expect(line).to_contain_text(word)
        await one.main.get_by_role("link", name="Show the image").click()
        await expect(one.main.get_by_role("heading").first).to_contain_text("watched:1")
        for seen in (all_pulls, one):
            documents = [url for url in seen.requests if url.partition("#")[0] == f"{seen.origin}/"]
            assert len(documents) <= 2, "one for the token, one for the page; none since"


async def test_a_pull_that_fails_says_why_in_words_that_stay_words(
    dashboard: Dashboard, open_page: Open
) -> None:
    smuggled = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    image = image_of("lie")
    config = b"application/vnd.oci.image.config.v1+json"
    assert config in image.manifest
    lie = Saying(image, body=image.manifest.replace(config, smuggled.encode()))
    async with (
        lying_registry({"team/lie": lie}) as host,
        open_page(dashboard.token(), "#/pulls") as seen,
    ):
        pulls = [f"{host}/team/{name}" for name in ("missing:1", "lie:1")]
        ended = await asyncio.gather(*map(dashboard.pulled, pulls))
        assert smuggled in ended[1]["failure"]["message"]
        for view in ended:
            assert view["state"] == "FAILURE"
            mine = row(seen, view["reference"])
            await expect(mine).to_contain_text("FAILURE")
            await expect(mine).to_contain_text(view["failure"]["code"])
            await expect(mine).to_contain_text(view["failure"]["message"])
        assert await seen.main.locator("img, script").count() == 0
        await row(seen, "team/missing:1").get_by_role("link").first.focus()
        await seen.page.keyboard.press("Enter")
        await expect(seen.main).to_contain_text(ended[0]["failure"]["message"])
        await expect(seen.main).to_contain_text(f"dray pull {ended[0]['reference']}")


def _between(least: int, most: int) -> re.Pattern[str]:
    return re.compile("^(" + "|".join(map(str, range(least, most + 1))) + ")$")
