"""Our programs in C, built as a site builds them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.users import REPOSITORY

ENTER_SOURCE = REPOSITORY / "deploy/enter"
STRICT = ("-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror")


def need_compiler() -> None:
    for program, package in {"gcc": "gcc", "make": "make"}.items():
        if shutil.which(program) is None:
            pytest.skip(f"needs a C compiler: install Debian's package {package}")


def build_enter(into: Path) -> Path:
    """dray-enter, of whose source the compiler has nothing to complain about."""
    need_compiler()
    _run("make", "-C", ENTER_SOURCE, "--no-print-directory", f"OUT={into}")
    return into / "dray-enter"


def compiled(program: str, into: Path) -> Path:
    """A test's own program around what dray-enter and the plugin share."""
    need_compiler()
    source = into.with_suffix(".c")
    source.write_text(program)
    parts = (source, ENTER_SOURCE / "dray_inside.c")
    _run("gcc", *STRICT, "-fsanitize=address,undefined", f"-I{ENTER_SOURCE}", "-o", into, *parts)
    return into


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PATH": os.defpath}
    )
    assert done.returncode == 0, done.stdout + done.stderr
