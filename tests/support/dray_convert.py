"""`dray convert` as a process with a cache of its own, and what it may leave behind."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Done = subprocess.CompletedProcess[str]
Dray = Callable[..., Done]


def dray_convert(directory: Path) -> Dray:
    """Runs it with a cache in `directory`; `first` is Python that goes before."""

    def run(*arguments: object, first: str = "", **options: Any) -> Done:
        program = f"{first}\nfrom cli.main import main\nmain()"
        python = options.pop("python", sys.executable)
        environment: Mapping[str, str] = options.pop("env", os.environ)
        return subprocess.run(
            [python, "-c", program, "convert", *map(str, arguments)],
            env={**environment, "XDG_CACHE_HOME": str(directory / "cache")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,
        )

    return run


def left_beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.glob(".*"))


def partials(directory: Path) -> list[Path]:
    return [*directory.rglob("*.partial"), *directory.rglob("*.lock")]
