"""Calling the helper in C as a rank of a job does, in a place where it and insides are."""

import subprocess
from pathlib import Path
from typing import Any, Final

from tests.support.users import AS_NOBODY

JOB: Final = "7"
IMAGE: Final = "abc"


def enter(
    place: Path,
    *words: str,
    who: dict[str, Any] = AS_NOBODY,
    cwd: str = "/",
    fds: tuple[int, ...] = (),
    **env: str,
) -> subprocess.CompletedProcess[str]:
    given = {
        "SLURM_JOB_ID": JOB,
        "DRAY_IMAGE_ID": IMAGE,
        "DRAY_INSIDES": str(place / "insides"),
        "PATH": "/host/bin",
        "HOME": "/home",
        **env,
    }
    return subprocess.run(
        [place / "dray-enter", *words],
        env={name: value for name, value in given.items() if value},
        cwd=cwd,
        pass_fds=fds,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **who,
    )
