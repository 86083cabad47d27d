"""Entering pinned insides, as their user or as somebody else."""

import subprocess
from pathlib import Path
from typing import Any

from shared.inside.people import Person
from tests.support.users import AS_NOBODY, ordinary_environment, ordinary_python

NOBODY = AS_NOBODY["user"]
PERSON = Person.of(NOBODY, NOBODY, ())

ENTER = """
import sys
from pathlib import Path
from cli.enter import EnterError, enter_job
pinned, *command = sys.argv[1:]
try:
    enter_job(Path(pinned), command, env={"PATH": "/bin"}, workdir="/")
except EnterError as exc:
    print(exc.message, file=sys.stderr)
    sys.exit(exc.exit_code)
"""


def enter(
    pinned: Path, *command: str, who: dict[str, Any] | None = None, code: str = ENTER
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ordinary_python(), "-c", code, str(pinned), *command],
        env=ordinary_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **(AS_NOBODY if who is None else who),
    )
