"""Builds dray-enter, the helper in C, into the package: a hook of hatchling's for `pip install`.

How it is compiled stands in deploy/enter/Makefile alone. Where that cannot be, the package goes
without, and is one for every machine: `dray run` needs no helper, and `dray doctor` tells.
"""

import subprocess
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME: Final = "dray-enter"
SOURCE: Final = "deploy/enter"


class EnterHook(BuildHookInterface[Any]):
    """Of wheels, those for editable installs among them; an sdist holds the source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        # It has to be there until the wheel is written.
        self._made = TemporaryDirectory(prefix="dray-build-")
        try:
            made = compiled(Path(self.root) / SOURCE, Path(self._made.name))
        except OSError as exc:
            self.app.display_warning(f"{NAME} is left out, {exc}; `dray run` works without it")
            return
        build_data["shared_scripts"][str(made)] = NAME
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.target_name == "wheel":
            self._made.cleanup()


def compiled(source: Path, into: Path) -> Path:
    """Raises OSError with what make says, or that there is none."""
    try:
        done = subprocess.run(
            ["make", "--silent", "-C", str(source), f"OUT={into}"],  # noqa: S607 - the user's own
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise OSError("there is no make here") from None
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise OSError(f"it cannot be compiled here: {said}")
    return into / NAME
