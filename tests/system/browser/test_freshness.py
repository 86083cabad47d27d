"""The page says how fresh it is, and comes back by itself, whatever happens to its gateway."""

import json
import re
from functools import partial
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Route, expect

from tests.support.browser import Open
from tests.support.conditions import eventually
from tests.support.dashboard import ALICE, Dashboard
from tests.support.images import File, Pusher, build_image, layer_of
from tests.support.registry import DebianRegistry

pytestmark = pytest.mark.asyncio(loop_scope="session")

AWAY = (
    r"ERR_CONNECTION_REFUSED",
    r"ERR_INCOMPLETE_CHUNKED",
    r"ERR_EMPTY",
    r"ERR_CONNECTION",
    "503",
)
LIVE = "**/api/v1/live*"
_NOTE_STATES = """() => {
    const chip = document.getElementById("freshness");
    window.states = [chip.dataset.state];
    const note = () => {
        if (window.states.at(-1) !== chip.dataset.state) window.states.push(chip.dataset.state);
    };
    new MutationObserver(note).observe(chip, { attributeFilter: ["data-state"] });
}"""


async def test_a_gateway_that_restarts_is_found_again_without_a_reload(
    dashboard: Dashboard, open_page: Open, registry: DebianRegistry
) -> None:
    Pusher(registry.url).push(build_image([layer_of({"f": File(b"restart")})]), "again", "1")
    async with open_page(dashboard.token(), "#/pulls") as seen:
        seen.forgive(*AWAY)
        await seen.page.evaluate("() => { window.sameDocument = true; }")
        dashboard.site.kill("up")
        await expect(seen.freshness).to_have_attribute("data-state", "stale")
        await expect(seen.freshness).to_contain_text("stale")
        await dashboard.site.up()
        await seen.is_live()
        pull = await dashboard.pull(f"{registry.host}/nothing/there:1")
        await expect(seen.main.get_by_text("nothing/there:1").first).to_be_visible()
        assert pull["state"] == "INIT"
        assert await seen.page.evaluate("() => window.sameDocument")


async def test_where_no_stream_gets_through_the_page_asks_and_streams_again_later(
    dashboard: Dashboard, open_page: Open, registry: DebianRegistry
) -> None:
    async with open_page(dashboard.token(ALICE), live=False) as seen:
        seen.forgive("ERR_FAILED")
        await seen.page.route(LIVE, lambda route: route.abort())
        await seen.page.reload()
        await expect(seen.freshness).to_have_attribute("data-state", "polling")
        await seen.go("#/pulls")
        await dashboard.pull(f"{registry.host}/asked/for:1", ALICE)
        await expect(seen.main.get_by_text("asked/for:1").first).to_be_visible()
        await seen.go("#/jobs")
        await expect(seen.main).to_contain_text("No job runs with images now")
        await seen.page.unroute(LIVE)
        await seen.page.evaluate("() => dispatchEvent(new Event('online'))")
        await seen.is_live()


async def test_a_stream_that_ends_after_its_hour_is_followed_on_unnoticed(
    dashboard: Dashboard, open_page: Open
) -> None:
    async with open_page(dashboard.token()) as seen:
        await seen.page.evaluate(_NOTE_STATES)
        # The next one is the gateway's own, cut after its first events.
        async with aiohttp.ClientSession() as http, http.get(f"{seen.origin}/api/v1/live") as live:
            begun = (await live.content.readuntil(b"event: overview")).decode()
        cut = partial(_served, body=begun)
        await seen.page.route(LIVE, cut, times=1)
        await seen.page.locator("#system").dispatch_event("change")
        await eventually(lambda: sum("/live" in url for url in seen.requests) == 3, within=10)
        await expect(seen.main.locator(".verdict")).not_to_contain_text("Asking")
        await seen.is_live()
        states = await seen.page.evaluate("() => window.states")
        assert states in (["live"], ["live", "connecting", "live"]), "once, by the change"


async def test_a_jobs_page_goes_on_with_the_next_job_of_its_number(
    dashboard: Dashboard, open_page: Open
) -> None:
    first, second = "2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z"
    ended, running = _job(first, released=second), _job(second)
    told: list[dict[str, Any]] = [ended]

    async def followed(route: Route) -> None:
        job = told[-1]
        letter = "R" if job["released_at"] else "S"
        grid = {"hostlist": "n1", "letters": letter}
        body = _event("grid", grid) + _event("job", {"job": job, "troubled": []})
        await _served(route, body=body)

    async def listed(route: Route) -> None:
        items = [job for job in told if job["released_at"] is None]
        await _served(route, body=_event("jobs", {"items": items, "next": None}))

    async with open_page(dashboard.token(), live=False) as seen:
        seen.forgive("404")
        await seen.page.route("**/api/v1/jobs/7/events", followed)
        await seen.page.route(LIVE, listed)
        await seen.page.reload()
        await seen.is_live()
        await seen.go("#/jobs/7")
        await expect(seen.main).to_contain_text("the job has ended")
        told.append(running)
        await expect(seen.main.locator(".state").first).to_have_text("ready")


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


async def _served(route: Route, body: str) -> None:
    await route.fulfill(content_type="text/event-stream", body=body)


def _job(announced: str, released: str | None = None) -> dict[str, Any]:
    state = "RELEASED" if released else "STAGED"
    return {
        "job_id": "7",
        "system": "cluster",
        "uid": None,
        "announced_by": "root",
        "images": [],
        "node_count": 1,
        "counts": {state: 1},
        "nodes": [],
        "reserved_until": None,
        "announced_at": announced,
        "released_at": released,
    }


async def test_without_its_catalog_a_gateway_says_what_is_wrong(
    dashboard: Dashboard, open_page: Open
) -> None:
    """Nothing else is answered then, and what was known is still shown."""

    async def answered(route: Route) -> None:
        if "/overview" not in route.request.url:
            await route.fulfill(status=503, json={"code": "catalog_unavailable"})
            return
        answer = await route.fetch()
        worry = {"code": "catalog_away", "level": "critical", "message": "the catalog is away: see"}
        await route.fulfill(response=answer, json={**await answer.json(), "worries": [worry]})

    async with open_page(dashboard.token(), live=False) as seen:
        seen.forgive("503")
        await seen.page.route(re.compile("/api/v1/(live|overview|queue|jobs)"), answered)
        await seen.page.reload()
        await expect(seen.main.locator(".verdict")).to_contain_text("the catalog is away")
        await expect(seen.freshness).to_have_attribute("data-state", "polling")


async def test_ages_are_told_by_the_gateways_clock(dashboard: Dashboard, open_page: Open) -> None:
    async with open_page(dashboard.token()) as seen:
        await seen.page.add_init_script("const now = Date.now; Date.now = () => now() - 3600e3;")
        await seen.page.reload()
        ahead = await seen.page.evaluate(
            """async () => {
                const { now } = await import("/web/js/format.js");
                const { get } = await import("/web/js/api.js");
                await get("/whoami");
                return now() - Date.now();
            }"""
        )
        assert abs(ahead - 3600e3) < 5000
