"""Running Python as somebody who is not root, for tests that root starts."""

import os
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534
AS_NOBODY: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
REPOSITORY = Path(__file__).parents[2]


def ordinary_environment() -> dict[str, str]:
    """With our packages on the path of an interpreter that is not ours."""
    paths = (str(REPOSITORY), sysconfig.get_path("purelib"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


@cache
def ordinary_python() -> str:
    """An interpreter that an ordinary user can run our code with; root's own is often private."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for program in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        try:
            done = subprocess.run(
                [program, "-c", "import aiohttp, pydantic_core, shared.errors"],
                env=ordinary_environment(),
                capture_output=True,
                check=False,
                **AS_NOBODY,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return program
    pytest.skip(f"there is no Python {version} that ordinary users may run our code with")


def let_everybody_in(directory: Path) -> None:
    """Open what pytest made for its own user; what is open already stays as it is."""
    for place in (directory, *directory.parents):
        mode = place.stat().st_mode & 0o7777
        if mode & 0o005 != 0o005:
            place.chmod(mode | 0o055)
