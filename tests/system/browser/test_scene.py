"""The pages of a busy site: of strangers' texts, in any light, on a phone.

The site is that of `bench.scene`: a real gateway, in whose catalog stands what its API would not
have taken, and events of everything that a dashboard can show.
"""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.support.browser import PHONE, WALL, Open, Watched, watched_page
from tests.support.contrast import texts
from tests.support.site import CHECKOUT

pytestmark = pytest.mark.asyncio(loop_scope="session")

JOB = "48213"
IMAGE = "#/images/cluster/docker/registry.example.org/ml/pytorch:2020.1"
PAGES = {
    "#/": "registry.example.org asks to come back",
    "#/pulls": "registry.example.org asks to come back",
    "#/queues": "distributor.gpu",
    "#/jobs": JOB,
    f"#/jobs/{JOB}": "registry.example.org/ml/inference:2020.1",
    "#/nodes": "nid",
    "#/images": "registry.example.org/chem/lammps",
    "#/storage": "cluster",
    IMAGE: "Digests",
}
"""By address, what shows that they are all there."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def open_scene(browser: Browser) -> AsyncIterator[Open]:
    command = [sys.executable, "-m", "bench.scene", "--nodes", "300", "--pulls", "12"]
    process = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        env={"PATH": os.defpath, "TMPDIR": os.environ.get("TMPDIR", "/tmp")},
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        yield partial(watched_page, browser, told["url"], told["admin"])
    finally:
        process.terminate()
        process.communicate(timeout=20)


async def at(seen: Watched, path: str) -> None:
    """The page shows what it has to."""
    await seen.go(path)
    await expect(seen.main).to_contain_text(PAGES[path])


async def test_strangers_texts_stay_texts(open_scene: Open) -> None:
    async with open_scene() as seen:
        await at(seen, "#/pulls")
        await expect(seen.main).to_contain_text("<img src=x onerror=alert(1)>")
        await expect(seen.main).to_contain_text("<script>alert('pulled')</script> <b>is not</b>")
        await expect(seen.main).to_contain_text("&amp; never was")
        await expect(seen.main).to_contain_text("<b>mallory</b>")
        await seen.main.get_by_role("link").filter(has_text="<img").click()
        await expect(seen.main).to_contain_text("<script>alert('pulled')</script>")
        await at(seen, "#/queues")
        closed = seen.main.get_by_role("button", name="Show the body")
        await expect(closed).to_have_count(4)
        for left in range(await closed.count(), 0, -1):
            await closed.first.click()
            await expect(closed).to_have_count(left - 1)
        await expect(seen.main).to_contain_text("of <img src=x onerror=alert(2)>")
        await expect(seen.main).to_contain_text("</pre><script>alert(3)</script>")
        await at(seen, IMAGE)
        await expect(seen.main).to_contain_text("<em>Example</em> & Sons")
        for path in PAGES:
            await at(seen, path)
            assert await seen.main.locator("img, script, em").count() == 0, path


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_can_be_read(scheme: str, open_scene: Open) -> None:
    async with open_scene(dark=scheme == "dark") as seen:
        for path in PAGES:
            await at(seen, path)
            found = await texts(seen.page)
            assert len(found) > 15, f"{path} says nothing"
            assert [each for each in found if not each.readable] == [], path


async def test_a_phone_shows_all_of_it_without_scrolling_sideways(open_scene: Open) -> None:
    async with open_scene(size=PHONE) as seen:
        for path in PAGES:
            await at(seen, path)
            wide = await seen.page.evaluate(
                "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert wide[0] <= wide[1], f"{path} is {wide[0]} wide on {wide[1]}"


async def test_a_wall_shows_all_of_the_overview(open_scene: Open) -> None:
    async with open_scene(size=WALL) as seen:
        await at(seen, "#/")
        await expect(seen.main.get_by_role("listitem").filter(has_text="warning")).to_have_count(4)
        await expect(seen.main.get_by_role("img", name="Nodes of jobs")).to_be_visible()
        tall = await seen.page.evaluate("() => document.documentElement.scrollHeight")
        assert tall <= WALL[1]
