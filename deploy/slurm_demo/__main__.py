"""`make slurm-demo`: a batch job over three nodes of a real Slurm runs inside an image."""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from deploy.demo.sample import sample
from deploy.demo.site import DemoError, mounts_below
from deploy.slurm_demo.cluster import NODES, Daemons, Places
from deploy.slurm_demo.installation import HEADER, PROGRAMS, install, plugstack
from deploy.slurm_demo.site import Site
from deploy.slurm_demo.tour import end_jobs, tour


def main() -> int:
    parser = argparse.ArgumentParser(prog="make slurm-demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    parser.add_argument("--dir", type=Path, default=Path(".slurm-demo"), help="for its data")
    arguments = parser.parse_args()
    directory = arguments.dir.resolve()
    began = time.monotonic()
    # asyncio stops in order on Ctrl-C: so it shall in the background, too, and on these.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        _check()
        (directory / "data").mkdir(parents=True, exist_ok=True)
        with _places() as places:
            asyncio.run(_demo(directory, places, keep=arguments.keep))
            left = mounts_below(places.base)
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0
    except DemoError as exc:
        print(f"\nThe demonstration cannot go on: {exc}", file=sys.stderr)
        return 1
    return _farewell(left, directory, time.monotonic() - began)


def _check() -> None:
    if os.geteuid() != 0:
        raise DemoError("slurmd starts jobs of any user, and agents mount: run it as root")
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if not HEADER.exists():
        missing.add("libslurm-dev")
    if missing:
        raise DemoError(
            "it needs a real Slurm and a C compiler; install these packages (Debian's names): "
            + " ".join(sorted(missing))
        )


@contextlib.contextmanager
def _places() -> Iterator[Places]:
    """What lives only as long as this: sockets, mounts, Slurm's state."""
    base = Path(tempfile.mkdtemp(prefix="dray-slurm-"))
    base.chmod(0o755)
    try:
        yield Places(base)
    finally:
        for point in mounts_below(base):
            subprocess.run(["/bin/umount", "-l", point], check=False)
        if not mounts_below(base):  # never through a mount
            shutil.rmtree(base, ignore_errors=True)


async def _demo(directory: Path, places: Places, *, keep: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        reference = await stack.enter_async_context(sample(directory / "registry"))
        site = Site(directory / "data", places)
        await install(places, site)
        print(f"Starting a private Slurm: munged, slurmctld, and slurmd for {', '.join(NODES)}.")
        await stack.enter_async_context(Daemons(places).running(plugstack(places, site)))
        print("Starting Dray in one process: gateway, converter, distributor, an agent per node.")
        await stack.enter_async_context(site.running())
        print(f"Dashboard: {site.url}/")
        stack.push_async_callback(end_jobs, site, places)
        await tour(site, places, reference)
        if keep:
            await _stay(site, places)


async def _stay(site: Site, places: Places) -> None:
    print(
        f"\nStill up. Look at {site.url}/ in a browser, or in another terminal, as root:\n"
        f"  export SLURM_CONF={places.conf} PATH={places.base}:$PATH\n"
        f"  sbatch {places.base}/job.sh; squeue; dray jobs; dray nodes\n"
        "Ctrl-C ends it.",
        flush=True,
    )
    await asyncio.Event().wait()


def _farewell(left: list[str], directory: Path, seconds: float) -> int:
    if left:
        print(f"\nStill mounted, which is a fault of ours: {', '.join(left)}", file=sys.stderr)
        return 1
    print(
        f"\nDone in {seconds:.1f} s. Slurm and Dray are stopped, and nothing is mounted; "
        f"{directory} keeps the image for the next run (`make clean` removes it).\n"
        "How to have this on a cluster: docs/slurm.md"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
