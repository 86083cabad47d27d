"""Callers who enter an image: root, and somebody ordinary."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.squashfs import is_root
from tests.support.users import AS_NOBODY, ordinary_environment, ordinary_python

PATIENCE = 30.0
SHARED_PLACE = Path("/srv")
"""A directory of every host that the test image has a mount point for."""
REFUSED = 88  # the probe's own status: this machine allows no user namespaces

RUN = """
import sys
from pathlib import Path
from cli.enter import EnterError, enter
root, workdir, *command = sys.argv[1:]
try:
    env = {"PATH": "/bin", "GREETING": "hello"}
    enter(Path(root), command, env=env, workdir=workdir or None)
except EnterError as exc:
    print(exc.code, exc.message, file=sys.stderr)
    sys.exit(exc.exit_code)
"""


@dataclass(frozen=True)
class Caller:
    """Who enters: root, or somebody ordinary."""

    name: str
    who: dict[str, Any]

    def start(self, *arguments: object, code: str = RUN, cwd: Path | str = "/") -> Any:
        return subprocess.Popen(
            [ordinary_python() if is_root() else "python3", "-c", code, *map(str, arguments)],
            env=ordinary_environment(),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **self.who,
        )

    def run(
        self,
        root: Path,
        *command: str,
        workdir: str = "",
        code: str = RUN,
        cwd: Path | str = "/",
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(root, workdir, *command, code=code, cwd=cwd)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


ROOT = pytest.param(
    Caller("root", {}),
    id="root",
    marks=[pytest.mark.root, pytest.mark.skipif(not is_root(), reason="needs root")],
)
ORDINARY = pytest.param(Caller("ordinary", AS_NOBODY if is_root() else {}), id="ordinary")
