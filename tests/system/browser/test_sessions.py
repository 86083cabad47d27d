"""Who looks: by token, for as long as it holds, in this tab only."""

import pytest
from playwright.async_api import Locator, expect

from tests.support.browser import Open, Watched
from tests.support.dashboard import ADMIN, ALICE, Dashboard

pytestmark = pytest.mark.asyncio(loop_scope="session")

REFUSED = "401"


def who(seen: Watched) -> Locator:
    return seen.page.locator("#who")


async def sign_in(seen: Watched, token: str) -> None:
    if not await seen.page.get_by_label("Token").is_visible():
        await seen.page.get_by_role("button", name="Sign in", exact=True).first.click()
    await seen.page.get_by_label("Token").fill(token)
    await seen.page.get_by_role("button", name="Sign in", exact=True).last.click()


async def test_a_link_signs_in_and_the_token_leaves_the_address(
    dashboard: Dashboard, open_page: Open
) -> None:
    token = dashboard.token(ALICE)
    async with open_page(token) as seen:
        await expect(who(seen)).to_contain_text(str(ALICE))
        assert token not in seen.page.url
        assert not any(token in url.partition("#")[0] for url in seen.requests)
        assert await seen.page.evaluate("() => Object.values(localStorage).join()") == ""
        # Of this tab only: another one knows nobody.
        other = await seen.page.context.new_page()
        await other.goto(dashboard.url)
        await expect(other.locator("#who")).to_have_text("Sign in")


async def test_signing_in_and_out_by_hand(dashboard: Dashboard, open_page: Open) -> None:
    async with open_page() as seen:
        await expect(who(seen)).to_have_text("Sign in")
        await expect(seen.page.get_by_role("link", name="Queues")).to_have_count(0)
        await who(seen).click()
        await sign_in(seen, dashboard.token())
        await expect(who(seen)).to_contain_text(ADMIN)
        await expect(seen.page.get_by_role("link", name="Queues")).to_be_visible()
        await seen.is_live()
        await seen.page.reload()
        await expect(who(seen)).to_contain_text(ADMIN)
        await who(seen).click()
        await expect(who(seen)).to_have_text("Sign in")
        await expect(seen.page.get_by_role("link", name="Queues")).to_have_count(0)
        await seen.page.reload()
        await expect(who(seen)).to_have_text("Sign in")


@pytest.mark.parametrize(
    ("kind", "why"), [("expired", "has expired"), ("wrong", "no token of this site")]
)
async def test_a_token_that_is_not_taken_says_why(
    kind: str, why: str, dashboard: Dashboard, open_page: Open
) -> None:
    good = dashboard.token(ALICE)
    bad = {"expired": dashboard.token(ALICE, seconds=-120), "wrong": good[:-4] + "AAAA"}[kind]
    async with open_page(bad, live=False) as seen:
        seen.forgive(REFUSED)
        await expect(seen.page.get_by_role("alert").filter(has_text=why)).to_be_visible()
        await sign_in(seen, good)
        await expect(who(seen)).to_contain_text(str(ALICE))
        await seen.is_live()


async def test_a_token_that_ends_while_the_page_is_open(
    dashboard: Dashboard, open_page: Open
) -> None:
    async with open_page() as seen:
        seen.forgive(REFUSED)
        await seen.go(f"#token={dashboard.token(ALICE, seconds=3)}")
        await expect(who(seen)).to_contain_text(str(ALICE))
        ended = seen.page.get_by_role("alert").filter(has_text="has expired")
        await expect(ended).to_be_visible()
        # A screen on a wall goes on: nothing stands before what the public may see.
        await expect(who(seen)).to_have_text("Sign in")
        await expect(seen.page.get_by_role("dialog")).to_be_hidden()
        await seen.is_live()
        await sign_in(seen, dashboard.token(ALICE))
        await expect(who(seen)).to_contain_text(str(ALICE))
        await expect(ended).to_be_hidden()
        await seen.is_live()
