"""Dray's part of a Slurm, installed as a site installs it: hooks, their settings, the plugin."""

import asyncio
import os
import shlex
import sys
from pathlib import Path
from typing import Final

from deploy.demo.site import DemoError
from deploy.slurm_demo.cluster import Places
from deploy.slurm_demo.site import Site

PROGRAMS: Final = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "srun": "slurm-client",
    "gcc": "gcc",
    "make": "make",
}
HEADER: Final = Path("/usr/include/slurm/spank.h")
SOURCE: Final = Path(__file__).parents[1] / "slurm"
ROOT: Final = SOURCE.parents[1]


async def install(places: Places, site: Site) -> None:
    """`make -C deploy/slurm install`, and a `dray` that knows this demonstration."""
    print("Building the SPANK plugin and installing the hooks (deploy/slurm) ...")
    make = await asyncio.create_subprocess_exec(
        *("make", "-C", str(SOURCE), "--no-print-directory", "install"),
        *(f"OUT={places.base}", f"HOOKS={places.hooks}"),
        *(f"PLUGINS={places.plugin.parent}", f"CONF={places.hooks_conf}"),
        env={"PATH": os.defpath + ":/usr/sbin:/sbin"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await make.communicate())[0].decode(errors="replace")
    if make.returncode != 0:
        raise DemoError(f"the plugin cannot be built:\n{output}")
    _write_dray(places, site)
    settings = {
        "DRAY": site.dray_program,
        "TIMEOUT": "/usr/bin/timeout",
        "DRAY_URL": site.url,
        "DRAY_SOCKET": site.agent_socket("%n"),
        "DRAY_HOOK_STATE": places.base / "hooks-state/%n",
        "DRAY_HOOK_SPOOL": places.base / "hooks-spool",
        "ALLOCATE_SECONDS": 30,
        "PROLOG_SECONDS": 20,
        "EPILOG_SECONDS": 10,
        "RELEASE_SECONDS": 10,
    }
    lines = (f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items())
    places.hooks_conf.write_text("".join(lines))


def plugstack(places: Places, site: Site) -> str:
    """plugstack.conf: the plugin, and which `dray` it asks."""
    words = (
        f"required {places.plugin} dray={site.dray_program}",
        f"state={places.base}/hooks-state/%n insides={site.agent_socket('%n').parent}/insides",
        f"timeout=60 --if-missing=wait --url={site.url}",
    )
    return " ".join(words) + "\n"


def _write_dray(places: Places, site: Site) -> None:
    """Elsewhere a node has one agent at its usual place, and one gateway for all is set once."""
    lines = (
        "#!/bin/sh",
        f"export DRAY_URL={site.url} DRAY_MUNGE_SOCKET={places.munge}",
        f"export PYTHONPATH={shlex.quote(str(ROOT))}",
        '[ -z "${SLURMD_NODENAME-}" ] ||',
        f'    export DRAY_SOCKET="{site.agent_socket("$SLURMD_NODENAME")}"',
        f"exec {shlex.quote(sys.executable)} -c 'from cli.main import main; main()' \"$@\"",
    )
    site.dray_program.write_text("\n".join(lines) + "\n")
    site.dray_program.chmod(0o755)
