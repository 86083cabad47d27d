"""A real browser, and pages in which nothing may go wrong unseen.

Each error of the console, violation of the page's policy, request that fails or is refused, and
request to another place is a problem; a test that ends with problems has failed.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    Request,
    Response,
    expect,
)

from bench.scene.browser import PROGRAMS, chromium
from bench.scene.browser import browser as opened_browser

WAIT_MILLISECONDS = 15_000.0
WIDE = (1280, 800)
PHONE = (390, 844)
WALL = (1920, 1080)
expect.set_options(timeout=WAIT_MILLISECONDS)


@asynccontextmanager
async def a_browser() -> AsyncIterator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip(f"needs a browser ({', '.join(PROGRAMS)}): install Debian's package chromium")
    async with opened_browser(program) as browser:
        yield browser


@dataclass(eq=False)
class Watched:
    """A page, and what went wrong in it."""

    page: Page
    origin: str
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _forgiven: list[re.Pattern[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(WAIT_MILLISECONDS)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self._problem(f"page error: {error}"))
        self.page.on("request", self._asked)
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)
        self.page.on("dialog", self._dialog)

    def forgive(self, *patterns: str) -> None:
        """Problems that the test brings about by itself."""
        self._forgiven += [re.compile(pattern) for pattern in patterns]

    def unforgiven(self) -> list[str]:
        return [
            each
            for each in self.problems
            if not any(pattern.search(each) for pattern in self._forgiven)
        ]

    async def go(self, path: str) -> None:
        """To a page by its address; what is open already is not loaded anew."""
        await self.page.goto(f"{self.origin}/{path}")

    async def is_live(self) -> None:
        await expect(self.freshness).to_have_attribute("data-state", "live")

    @property
    def freshness(self) -> Locator:
        return self.page.locator("#freshness")

    @property
    def main(self) -> Locator:
        return self.page.get_by_role("main")

    def _problem(self, what: str) -> None:
        self.problems.append(what)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._problem(f"console {message.type}: {message.text} ({message.location})")

    def _asked(self, request: Request) -> None:
        self.requests.append(request.url)
        if not request.url.startswith((f"{self.origin}/", "data:", "blob:")):
            self._problem(f"request to another place: {request.url}")

    def _failed(self, request: Request) -> None:
        # Whoever leaves a page, or looks at something else, ends what it was reading.
        if request.failure != "net::ERR_ABORTED":
            self._problem(f"request failed: {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self._problem(f"refused: {response.status} {response.url}")

    async def _dialog(self, dialog: Dialog) -> None:
        """Only what a stranger smuggled in opens one of these: pages ask by elements of theirs."""
        self._problem(f"a dialog opened: {dialog.message}")
        await dialog.dismiss()


Open = Callable[..., AbstractAsyncContextManager[Watched]]
"""What is left of `watched_page` once browser and origin are known."""


@asynccontextmanager
async def watched_page(
    browser: Browser,
    origin: str,
    token: str | None = None,
    path: str = "#/",
    *,
    size: tuple[int, int] = WIDE,
    dark: bool = False,
    live: bool = True,
) -> AsyncIterator[Watched]:
    """A page in a window of its own, live; problems that nobody forgave are an error."""
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
    )
    try:
        watched = Watched(await context.new_page(), origin)
        if token is not None:
            await watched.go(f"#token={token}")
        await watched.go(path)
        if live:
            await watched.is_live()
        yield watched
        assert watched.unforgiven() == []
    finally:
        await context.close()
