"""What deploy/slurm holds, installed for a private Slurm as a site would install it."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.support.slurm_conf import Hooks
from tests.support.slurm_images import WHERE
from tests.support.slurm_site import Cluster
from tests.support.users import REPOSITORY, ordinary_environment, ordinary_python

SOURCE = REPOSITORY / "deploy/slurm"
HEADER = Path("/usr/include/slurm/spank.h")
LIMITS = {"ALLOCATE": 60, "PROLOG": 90, "EPILOG": 60, "RELEASE": 60}
"""In seconds, for a machine that is busy; Slurm's own are above."""


def need_compiler() -> None:
    for program, package in {"gcc": "gcc", "make": "make"}.items():
        if shutil.which(program) is None:
            pytest.skip(f"needs a C compiler: install Debian's package {package}")
    if not HEADER.exists():
        pytest.skip("needs Slurm's headers: install Debian's package libslurm-dev")


@dataclass(frozen=True, slots=True)
class Installed:
    """Where everything is."""

    dray: Path
    hooks: Path
    conf: Path
    state: Path
    """Of all nodes: one directory below it each."""
    spool: Path
    plugin: Path
    socket_template: str

    def inside(self, *words: str) -> str:
        """A line of a job's script that runs the job's image; `words` are options of `dray run`."""
        socket = self.socket_template.replace("%n", "$SLURMD_NODENAME")
        node = "DRAY_TEST_NODE=$SLURMD_NODENAME"
        what = " ".join(words) or f"-- {WHERE}"
        return f"{node} DRAY_SOCKET={socket} {self.dray} run -e DRAY_TEST_NODE {what}"

    def verdict(self, node: str, job_id: str) -> Path:
        return self.state / node / f"{job_id}.images"


def build_plugin(into: Path) -> Path:
    """The SPANK plugin, of whose source the compiler has nothing to complain about."""
    _make(f"OUT={into}")
    return into / "spank_dray.so"


def _make(*words: str) -> None:
    need_compiler()
    done = subprocess.run(
        ["make", "-C", SOURCE, "--no-print-directory", *words],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def install(
    cluster: Cluster,
    *submit: str,
    timeout: int = 60,
    limits: Mapping[str, int] = MappingProxyType({}),
    **hooks: object,
) -> Installed:
    """Install plugin and scripts into the cluster's directory, and have its Slurm use them.

    `submit` are options of `dray hook submit`; `hooks` replaces fields of Hooks.
    """
    base, site = cluster.slurm.directory, cluster.site
    conf, spool = base / "etc/hooks.conf", base / "dray-spool"
    socket = {"DRAY_MUNGE_SOCKET": str(cluster.slurm.munge_socket)}
    dray = site.dray(base / "dray", **socket)
    _make(
        "install", f"OUT={base}", f"HOOKS={base}/hooks", f"PLUGINS={base}/plugins", f"CONF={conf}"
    )
    settings = {
        "DRAY": str(dray),
        "TIMEOUT": shutil.which("timeout") or "",
        "DRAY_URL": site.url,
        "DRAY_SOCKET": site.socket_template,
        "DRAY_HOOK_STATE": f"{base}/nodes/%n",
        "DRAY_HOOK_SPOOL": str(spool),
        **{f"{name}_SECONDS": str(value) for name, value in {**LIMITS, **limits}.items()},
    }
    conf.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    plugin = base / "plugins/spank_dray.so"
    options = " ".join((f"--url={site.url}", *submit))
    scripts = base / "hooks"
    given = {
        "prolog": scripts / "prolog.sh",
        "epilog": scripts / "epilog.sh",
        "prolog_slurmctld": scripts / "prolog_slurmctld.sh",
        "epilog_slurmctld": scripts / "epilog_slurmctld.sh",
        "plugstack": (
            f"required {plugin} dray={dray} state={base}/nodes/%n timeout={timeout} "
            f"insides={site.run_dir('%n')}/insides {options}\n"
        ),
        "extra": ("BatchStartTimeout=120", "PrologEpilogTimeout=120"),
    }
    cluster.slurm.hooks = Hooks(**{**given, **hooks})  # type: ignore[arg-type]
    return Installed(dray, scripts, conf, base / "nodes", spool, plugin, site.socket_template)


def install_command(cluster: Cluster, name: str, module: str) -> Path:
    """A command for every user: the nodes of this Slurm are one machine, and have one PATH.

    The directory that it is in.
    """
    place = cluster.slurm.directory / "commands"
    place.mkdir(exist_ok=True)
    socket = cluster.site.socket_template.replace("%n", "$SLURMD_NODENAME")
    packages = shlex.quote(ordinary_environment()["PYTHONPATH"])
    (place / name).write_text(
        f'#!/bin/sh\nexport PYTHONPATH={packages} DRAY_SOCKET="{socket}"\n'
        f'exec {ordinary_python()} -c "from {module} import main; main()" "$@"\n'
    )
    (place / name).chmod(0o755)
    return place
