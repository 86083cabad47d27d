"""What `pip install` brings: the commands, the dashboard, and dray-enter where it can be built."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.c_programs import need_compiler

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"


def built(into: Path, **env: str) -> tuple[Path, str]:
    """The wheel, and what was said meanwhile. No registry is asked: hatchling is here."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(into)],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = into.glob("*.whl")
    return wheel, done.stdout + done.stderr


def _is_for_browsers(path: Path) -> bool:
    return path.suffix in {".html", ".css", ".js", ".svg"}


def test_dray_enter_is_one_of_the_commands(tmp_path: Path) -> None:
    need_compiler()
    wheel, _ = built(tmp_path, INSIDES="/run/elsewhere/insides")
    assert wheel.name.endswith(f"-py3-none-linux_{os.uname().machine}.whl")
    # Never --prefix, which uninstalls what is installed.
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    there = tmp_path / "there"
    options = ("--no-index", "--no-deps", "--no-compile", "--target", str(there))
    subprocess.run([*pip, *options, str(wheel)], check=True, capture_output=True)
    program = there / "bin/dray-enter"
    assert {path.name for path in program.parent.iterdir()} == {
        "dray", "dray-enter", "shifter", "shifterimg",
    }  # fmt: skip
    assert program.stat().st_mode & 0o7777 == 0o755
    helped = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    assert helped.stdout.startswith("usage: dray-enter")
    env = {"SLURM_JOB_ID": "1", "DRAY_IMAGE_ID": "a"}
    lost = subprocess.run(
        [program, "--", "x"], env=env, capture_output=True, text=True, check=False
    )
    assert "/run/elsewhere/insides/1@a" in lost.stderr, "make is told of the site's directory"


@pytest.mark.parametrize(
    ("env", "why"),
    [({"PATH": "/nonexistent"}, "no make"), ({"CC": "no-such-compiler"}, "no-such-compiler")],
)
def test_without_a_compiler_all_else_is_there(
    tmp_path: Path, env: dict[str, str], why: str
) -> None:
    wheel, said = built(tmp_path, **env)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "dray-enter is left out" in said
    assert why in said
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert "cli/main.py" in names
    pages = ROOT / "services/gateway/web"
    shown = {str(path.relative_to(ROOT)) for path in pages.rglob("*") if _is_for_browsers(path)}
    assert len(shown) > 20
    assert shown <= set(names), "the dashboard comes along"
    assert not [name for name in names if name.endswith("dray-enter")]
