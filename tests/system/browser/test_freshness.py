"""The page says how fresh it is, and comes back by itself, whatever happens to its gateway."""

import pytest
from playwright.async_api import expect

from tests.support.browser import Open
from tests.support.dashboard import Dashboard
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
    live = "**/api/v1/live*"
    async with open_page(dashboard.token(), live=False) as seen:
        seen.forgive("ERR_FAILED")
        await seen.page.route(live, lambda route: route.abort())
        await seen.page.reload()
        await expect(seen.freshness).to_have_attribute("data-state", "polling")
        await seen.go("#/pulls")
        await dashboard.pull(f"{registry.host}/asked/for:1")
        await expect(seen.main.get_by_text("asked/for:1").first).to_be_visible()
        await seen.page.unroute(live)
        await seen.is_live()
