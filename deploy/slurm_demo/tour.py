"""What the demonstration shows, in the order in which a job lives."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from deploy.demo.site import DemoError, mounts_below
from deploy.slurm_demo.cluster import NODES, Places
from deploy.slurm_demo.site import Site

JOB: Final = """\
#!/bin/bash
#SBATCH --job-name=hello --nodes=3 --ntasks=3
#SBATCH --image={reference}

. /etc/os-release
echo "The batch script runs on $SLURMD_NODENAME, which has $PRETTY_NAME."
echo "The job's image is $DRAY_IMAGE, pinned as ${{DRAY_IMAGE_ID:0:12}}."
srun --label dray run -e SLURMD_NODENAME -e SLURM_PROCID -- sh -c '
    . /etc/os-release
    echo "rank $SLURM_PROCID on $SLURMD_NODENAME is in $PRETTY_NAME"' | sort
until [ -e looked ]; do sleep 0.2; done    # so that there is something to look at
"""
SECONDS: Final = 30.0
END_SECONDS: Final = 15.0
LOOK_AGAIN: Final = 0.1


async def tour(site: Site, places: Places, reference: str) -> None:
    script, out = places.base / "job.sh", places.base / "job.out"
    await asyncio.to_thread(script.write_text, JOB.format(reference=reference))
    await site.run("cat", "job.sh")
    await _submitted(site, script, out)

    print("\nWhile the job runs: PrologSlurmctld has announced it, each Prolog had it mounted.")
    await _until(site, places, lambda: _said(out, "rank 2"))
    await _until(site, places, lambda: _nodes_have_told(site))
    await site.run("squeue")
    await site.run("dray", "jobs")
    await site.run("dray", "nodes")
    await asyncio.to_thread((places.base / "looked").touch)

    print("\nWaiting for its end, and for the epilogs ...")
    await _until(site, places, lambda: _is_over(site, places))
    await site.run("cat", "job.out")
    await site.run("dray", "jobs")
    await site.run("sinfo", "-N", "-o", "%N %T", shown="sinfo -N -o '%N %T'")
    print(f"Nothing of it is mounted on {', '.join(NODES)} any more.")


async def end_jobs(site: Site, places: Places) -> None:
    """Whatever came between: agents keep the mounts of jobs that still run."""
    jobs = (await site.output("squeue", "-h", "-o", "%A")).split()
    if jobs:
        await site.output("scancel", *jobs)
        end = time.monotonic() + END_SECONDS
        while time.monotonic() < end:
            if await _is_over(site, places):
                return
            await asyncio.sleep(LOOK_AGAIN)


async def _submitted(site: Site, script: Path, out: Path) -> None:
    """Until the image is READY, sbatch waits, and says how far it is."""
    print(f"\n$ sbatch {script.name} &", flush=True)
    sbatch = await site.start("sbatch", f"--output={out}", str(script))
    await _queue_meanwhile(site, sbatch)
    if await sbatch.wait() != 0:
        raise DemoError("sbatch refused the job, for the reason above")


async def _queue_meanwhile(site: Site, sbatch: asyncio.subprocess.Process) -> None:
    """Once, while there is something in it; an image of an earlier run is READY at once."""
    while sbatch.returncode is None:
        if await site.output("dray", "queue", "-q"):
            await site.run("dray", "queue")
            return
        await asyncio.sleep(LOOK_AGAIN)


async def _said(out: Path, text: str) -> bool:
    return text in await asyncio.to_thread(_read, out)


def _read(out: Path) -> str:
    return out.read_text(errors="replace") if out.exists() else ""


async def _nodes_have_told(site: Site) -> bool:
    """That they have the image mounted: they do so every two seconds."""
    nodes = json.loads(await site.output("dray", "nodes", "--json") or "{}").get("items", [])
    return [node["mounts"] for node in nodes] == [1] * len(NODES)


async def _is_over(site: Site, places: Places) -> bool:
    states = (await site.output("sinfo", "-h", "-N", "-o", "%T")).split()
    queue = await site.output("squeue", "-h")
    return not queue and states == ["idle"] * len(NODES) and not mounts_below(places.base)


async def _until(site: Site, places: Places, condition: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + SECONDS
    while not await condition():
        if time.monotonic() > end:
            await site.run("squeue")
            await site.run("cat", "job.out")
            raise DemoError(f"the job does not go on.\n{places.tail('slurmctld.log')}")
        await asyncio.sleep(LOOK_AGAIN)
