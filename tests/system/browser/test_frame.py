"""What holds on every page of the dashboard: its policy, its origin, and the keyboard."""

import pytest
from playwright.async_api import Page, expect

from tests.support.browser import Open
from tests.support.dashboard import Dashboard

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = ("#/", "#/pulls", "#/queues", "#/jobs", "#/nodes", "#/images", "#/storage")


async def test_pages_keep_to_their_origin_and_to_a_strict_policy(
    dashboard: Dashboard, open_page: Open
) -> None:
    async with open_page(dashboard.token()) as seen:
        answer = await seen.page.reload()
        assert answer is not None
        policy = answer.headers["content-security-policy"]
        rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert rules["require-trusted-types-for"] == "'script'"
        assert "unsafe" not in policy
        for path in PAGES:
            await seen.go(path)
            await expect(seen.main.get_by_role("heading").first).to_be_visible()
        assert len({url for url in seen.requests if url.startswith(dashboard.url)}) > 10


async def test_what_a_stranger_smuggles_in_does_not_run(
    dashboard: Dashboard, open_page: Open
) -> None:
    """If ever a name were taken for HTML, the policy would still be there."""
    async with open_page(dashboard.token()) as seen:
        seen.forgive("Content Security Policy", "Trusted")
        refused = await seen.page.evaluate(
            """() => {
                try { document.body.innerHTML = "<img src=x onerror='window.ran = 1'>"; }
                catch (problem) { return problem.name; }
                return "";
            }"""
        )
        assert refused == "TypeError"
        await seen.page.evaluate(
            """() => {
                const link = document.createElement("a");
                try { link.setAttribute("onclick", "window.ran = 1"); } catch { return; }
                document.body.append(link);
                link.click();
            }"""
        )
        assert await seen.page.evaluate("() => window.ran") is None


async def test_all_is_reached_and_seen_by_keyboard(dashboard: Dashboard, open_page: Open) -> None:
    async with open_page(dashboard.token()) as seen:
        keyboard, page = seen.page.keyboard, seen.page
        await keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to the content")
        await expect(skip).to_be_focused()
        await expect(skip).to_be_in_viewport()
        order = []
        for _ in range(6):
            await keyboard.press("Tab")
            order.append(await page.evaluate("() => document.activeElement.textContent.trim()"))
            assert await _outlined(page), f"{order[-1]} does not show that it has the focus"
        assert order[:3] == ["Dray", "Overview", "Pulls"], "as they are read"
        await page.get_by_role("link", name="Jobs", exact=True).focus()
        await keyboard.press("Enter")
        await expect(seen.main.get_by_role("heading", name="Jobs").first).to_be_visible()
        await expect(page.get_by_role("link", name="Jobs", exact=True)).to_have_attribute(
            "aria-current", "page"
        )
        await skip.focus()
        await keyboard.press("Enter")
        await expect(seen.main).to_be_focused()
        assert "#/jobs" in page.url, "the link skips, and goes nowhere else"


async def _outlined(page: Page) -> bool:
    """Whether the element with the focus looks otherwise than without it."""
    return bool(
        await page.evaluate(
            """() => {
                const style = getComputedStyle(document.activeElement);
                const outline = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
                return outline > 0 || style.boxShadow !== "none";
            }"""
        )
    )


async def test_addresses_of_images_lead_back_to_them(dashboard: Dashboard, open_page: Open) -> None:
    """Whatever stands in a reference: an address is cut at its ? and its #."""
    async with open_page(dashboard.token()) as seen:
        for reference in (
            "a/b?x=1#y:1",
            "a/100%/c++:1",
            "a/%2e%2e/b:1",
            "größe/☃:é",
            "h:5000/x@sha256:0",
        ):
            image = {"system": "s y?", "type": "custom", "reference": reference}
            found = await seen.page.evaluate(
                """async (image) => {
                    const { imageAddress } = await import("/web/js/parts/names.js");
                    const { pageOf } = await import("/web/js/pages.js");
                    const link = document.createElement("a");
                    link.href = imageAddress(image);
                    return pageOf(link.hash.slice(1)).parameters;
                }""",
                image,
            )
            assert found == image


async def test_copying_works_over_plain_http(dashboard: Dashboard, open_page: Open) -> None:
    """Where browsers give pages no clipboard."""
    async with open_page(dashboard.token()) as seen:
        await seen.page.context.grant_permissions(["clipboard-read"])
        await seen.page.evaluate(
            """async () => {
                window.reader = navigator.clipboard;
                Object.defineProperty(navigator, "clipboard", { value: undefined });
                const { copyButton } = await import("/web/js/parts/facts.js");
                document.getElementById("main").append(copyButton("Copy it", () => "nid[001-128]"));
            }"""
        )
        button = seen.page.get_by_role("button", name="Copy it")
        await button.click()
        await expect(button).to_have_text("Copied")
        assert await seen.page.evaluate("() => window.reader.readText()") == "nid[001-128]"
