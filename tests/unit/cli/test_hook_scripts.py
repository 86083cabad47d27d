"""The shell scripts around the hooks: they end with 0, whatever is wrong, without any PATH."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "deploy/slurm"
SECONDS = {"allocate": "ALLOCATE", "release": "RELEASE", "prolog": "PROLOG", "epilog": "EPILOG"}
SCRIPTS = {
    "prolog_slurmctld.sh": "allocate",
    "epilog_slurmctld.sh": "release",
    "prolog.sh": "prolog",
    "epilog.sh": "epilog",
}
JOB = {"SLURM_JOB_ID": "17", "SPANK_DRAY_IMAGES": "some"}
each_script = pytest.mark.parametrize("script", SCRIPTS)


def _run(tmp_path: Path, script: str, conf: str | None, env: dict[str, str]) -> str:
    """What it says, after it has ended well."""
    place = tmp_path / "hooks.conf"
    if conf is not None:
        place.write_text(conf)
    text = (SOURCE / script).read_text()
    assert text.count("conf=/etc/dray/hooks.conf\n") == 1
    installed = tmp_path / script
    installed.write_text(text.replace("/etc/dray/hooks.conf", str(place)))
    done = subprocess.run(
        ["/bin/sh", installed],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _conf(tmp_path: Path, dray: str, seconds: int = 7) -> str:
    program = tmp_path / "dray"
    program.write_text(f"#!/bin/sh\n{dray}\n")
    program.chmod(0o755)
    limits = "".join(f"{name}_SECONDS={seconds}\n" for name in SECONDS.values())
    return f"DRAY={program}\nTIMEOUT={shutil.which('timeout')}\nDRAY_URL=http://gw:1\n{limits}"


@each_script
def test_it_calls_its_hook_with_its_time_and_its_settings(tmp_path: Path, script: str) -> None:
    conf = _conf(tmp_path, 'echo "$@" $DRAY_URL $SLURM_JOB_ID; exit 1')
    said = _run(tmp_path, script, conf, JOB)
    assert said == f"hook {SCRIPTS[script]} --wait 7 http://gw:1 17\n"


@each_script
def test_jobs_without_an_image_cost_nothing(tmp_path: Path, script: str) -> None:
    assert _run(tmp_path, script, _conf(tmp_path, "echo called"), {"SLURM_JOB_ID": "17"}) == ""
    pulls = {"SLURM_JOB_ID": "17", "SPANK_DRAY_PULLS": "some"}
    assert _run(tmp_path, script, _conf(tmp_path, "echo called"), pulls) == "called\n"


@each_script
@pytest.mark.parametrize(
    "conf", [None, "if then (", "exit 3", "DRAY=/nowhere\nTIMEOUT=/nowhere", "set -e; false"]
)
def test_a_configuration_that_is_wrong_does_no_harm(
    tmp_path: Path, script: str, conf: str | None
) -> None:
    assert _run(tmp_path, script, conf, JOB) == ""


def test_a_hook_that_hangs_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    conf = _conf(tmp_path, "trap '' TERM ALRM\nexec /bin/sleep 600", seconds=-4)
    _run(tmp_path, "prolog.sh", conf, JOB)
    assert time.monotonic() - began < 30


def test_the_example_says_everything_that_the_scripts_want() -> None:
    example = (SOURCE / "hooks.conf").read_text()
    for name in ("DRAY", "TIMEOUT", *(f"{name}_SECONDS" for name in SECONDS.values())):
        assert f"\n{name}=" in example
