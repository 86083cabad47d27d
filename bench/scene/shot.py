"""`python -m bench.scene.shot`: a picture of one page of a running gateway, once it is live."""

import argparse
import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from playwright.async_api import Browser, Page
from playwright.async_api import TimeoutError as NotInTimeError

from bench.scene.browser import PROGRAMS, browser, chromium

Scheme = Literal["dark", "light"]
LIVE: Final = '#freshness[data-state="live"]'
_PHONE_WIDTH: Final = 600
_MILLISECONDS: Final = 10_000.0


@dataclass(frozen=True, slots=True)
class View:
    """What is looked at, and through which window."""

    path: str
    width: int = 1440
    height: int = 900
    scheme: Scheme = "dark"
    wait: str | None = None
    """A selector of what must be there besides."""
    settle: float = 1.5
    """Seconds for what comes after the page is live."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scene.shot", description=__doc__)
    parser.add_argument("--url", required=True, help="of the gateway")
    parser.add_argument("--token", help="default: nobody's eyes")
    parser.add_argument("--path", default="#/", help="the page, such as #/pulls")
    parser.add_argument("--out", type=Path, required=True, help="a PNG")
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--scheme", choices=("dark", "light"), default="dark")
    parser.add_argument("--wait", help="a selector that must be there first")
    parser.add_argument("--settle", type=float, default=1.5, help="seconds to wait then")
    arguments = parser.parse_args()
    view = View(
        path=arguments.path,
        width=arguments.width,
        height=arguments.height,
        scheme=arguments.scheme,
        wait=arguments.wait,
        settle=arguments.settle,
    )
    asyncio.run(_shoot(arguments.url, arguments.token, view, arguments.out))


async def _shoot(url: str, token: str | None, view: View, out: Path) -> None:
    program = chromium()
    if program is None:
        sys.exit(f"there is no {' or '.join(PROGRAMS)} here: install Debian's package chromium")
    async with browser(program) as opened:
        await shoot(opened, url, token, view, out)


async def shoot(opened: Browser, url: str, token: str | None, view: View, out: Path) -> None:
    context = await opened.new_context(
        viewport={"width": view.width, "height": view.height},
        color_scheme=view.scheme,
        is_mobile=view.width < _PHONE_WIDTH,
        has_touch=view.width < _PHONE_WIDTH,
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
    )
    try:
        page = await context.new_page()
        page.on("console", lambda message: print(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: print(f"error: {error}"))
        await visit(page, url, token, view.path)
        if not await _live(page):
            print(f"{view.path} is not live; this is how it looks instead", file=sys.stderr)
        if view.wait is not None:
            await page.wait_for_selector(view.wait, timeout=_MILLISECONDS)
        await asyncio.sleep(view.settle)
        await page.screenshot(path=out, animations="disabled")
    finally:
        await context.close()


async def _live(page: Page) -> bool:
    try:
        await page.wait_for_selector(LIVE, timeout=_MILLISECONDS)
    except NotInTimeError:
        return False
    return True


async def visit(page: Page, url: str, token: str | None, path: str) -> None:
    """Signs in as a link of `dray dashboard` does, and goes to the page."""
    if token is not None:
        await page.goto(f"{url}/#token={token}")
    await page.goto(f"{url}/{path}")


if __name__ == "__main__":
    main()
