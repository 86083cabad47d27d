"""`python -m bench.screenshots`: makes the pictures of the dashboard in docs/images.

They show the site of `bench.scene`, always the same one; only its clock differs.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from bench.scene.browser import PROGRAMS, browser, chromium
from bench.scene.scheduler import HUGE
from bench.scene.shot import View, shoot
from bench.scene.small_png import smaller

CHECKOUT: Final = Path(__file__).resolve().parents[1]
PICTURES: Final = CHECKOUT / "docs" / "images"
SETTLE_SECONDS: Final = 45.0
"""Until the scene has pulls in every state, and its jobs are staged half-way."""
MOST_BYTES: Final = 250_000
_IMAGE: Final = "#/images/cluster/docker/registry.example.org/ml/pytorch:2022.3"


@dataclass(frozen=True, slots=True)
class Site:
    """Where the scene is."""

    url: str
    admin: str

    async def pull(self) -> str:
        """One that has gone through most states."""
        headers = {"Authorization": f"Bearer {self.admin}"}
        async with (
            aiohttp.ClientSession(headers=headers, raise_for_status=True) as api,
            api.get(f"{self.url}/api/v1/queue") as answer,
        ):
            pulls = (await answer.json())["items"]
        one: str = max(pulls, key=lambda pull: (pull["tries"] == 1, len(pull["steps"])))["id"]
        return one


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.screenshots", description=__doc__)
    parser.add_argument("--out", type=Path, default=PICTURES, help="default: docs/images")
    parser.add_argument("--only", nargs="*", help="pictures by name")
    arguments = parser.parse_args()
    program = chromium()
    if program is None:
        sys.exit(f"there is no {' or '.join(PROGRAMS)} here: install Debian's package chromium")
    arguments.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(_run(program, arguments.out, arguments.only))


async def _run(program: str, out: Path, only: list[str] | None) -> None:
    async with _scene() as site, browser(program) as opened:
        await asyncio.sleep(SETTLE_SECONDS)
        for name, view in _views(await site.pull()).items():
            if only and name not in only:
                continue
            file = out / f"{name}.png"
            await shoot(opened, site.url, site.admin, view, file)
            file.write_bytes(await smaller(opened, file.read_bytes()))
            size = file.stat().st_size
            print(f"{file.name}: {size / 1000:.0f} kB", flush=True)
            if size > MOST_BYTES:
                sys.exit(f"{file.name} is too large: take less of the page")


def _views(pull: str) -> dict[str, View]:
    return {
        "dashboard-dark": View("#/", height=1000),
        "dashboard-light": View("#/", height=1000, scheme="light"),
        "wall": View("#/", 1920, 1080),
        "phone": View("#/", 390, 844, scheme="light"),
        "pulls": View("#/pulls", height=760),
        "pull": View(f"#/pulls/{pull}", height=760, scheme="light"),
        "job": View(f"#/jobs/{HUGE}", height=1000),
        "image": View(_IMAGE, height=760),
        "images": View("#/images", height=760, scheme="light"),
        "storage": View("#/storage", height=900),
        "queues": View("#/queues", height=700, scheme="light"),
    }


@asynccontextmanager
async def _scene() -> AsyncIterator[Site]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.scene", "--plain"), cwd=CHECKOUT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            sys.exit("the scene did not start")
        told = json.loads(line)
        yield Site(told["url"], told["admin"])
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


if __name__ == "__main__":
    main()
