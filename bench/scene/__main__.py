"""`python -m bench.scene`: a busy site to look at, until SIGTERM.

The gateway is the real one, with a catalog and a bus in its process. Converters, distributors,
agents, users and the scheduler only pretend: they speak the real events and requests, and move no
byte. It prints one line of JSON: where the dashboard is, and tokens of an admin and of a user.
"""

import argparse
import asyncio
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.scene.site import Scale, prepared
from shared.logging import configure_logging
from shared.service import run_services
from shared.settings.site import LogSettings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scene", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--nodes", type=int, default=10_000, help="of the largest job")
    parser.add_argument("--pulls", type=int, default=30, help="under way at a time")
    parser.add_argument("--plain", action="store_true", help="without names that look like HTML")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    scale = Scale(
        port=arguments.port,
        nodes=arguments.nodes,
        pulls=arguments.pulls,
        seed=arguments.seed,
        plain=arguments.plain,
    )
    configure_logging(LogSettings(format="json", level="error"))
    with TemporaryDirectory(prefix="dray-scene-") as work:
        asyncio.run(_run(Path(work), scale))


async def _run(work: Path, scale: Scale) -> None:
    site = await prepared(work, scale)
    told = {
        "url": site.url,
        "admin": site.admin,
        "user": site.user,
        "socket": str(site.socket),
    }
    await run_services(site.services, started=lambda: print(json.dumps(told), flush=True))


if __name__ == "__main__":
    main()
