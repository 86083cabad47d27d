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


def _install(tmp_path: Path, *variables: str) -> Path:
    """Where it was installed to; the plugin is not built for it."""
    if shutil.which("make") is None:
        pytest.skip("needs make (Debian: make)")
    plugin = tmp_path / "spank_dray.so"
    plugin.touch()
    root = tmp_path / "root"
    subprocess.run(
        ["make", "-C", SOURCE, "-o", plugin, "install", f"OUT={tmp_path}", f"DESTDIR={root}",
         *variables],
        check=True,
        capture_output=True,
        timeout=60,
    )  # fmt: skip
    return root


def test_all_is_installed_where_it_is_said_to_be(tmp_path: Path) -> None:
    root = _install(tmp_path, "CONF=/opt/site/dray.conf", "SPOOL=/var/lib/dray/ended")
    conf = (root / "opt/site/dray.conf").read_text()
    example = (SOURCE / "hooks.conf").read_text()
    assert conf == example.replace("=/var/spool/dray\n", "=/var/lib/dray/ended\n")
    assert conf != example
    spool = root / "var/lib/dray/ended"
    assert spool.stat().st_mode & 0o777 == 0o755
    assert not (root / "etc").exists()
    for script in SCRIPTS:
        installed = root / "usr/libexec/dray/slurm" / script
        assert "\nconf=/opt/site/dray.conf\n" in installed.read_text()
        assert installed.stat().st_mode & 0o777 == 0o755


def test_what_a_site_has_made_its_own_is_left_as_it_is(tmp_path: Path) -> None:
    root = _install(tmp_path)
    (root / "etc/dray/hooks.conf").write_text("DRAY=/opt/dray\n")
    (root / "var/spool/dray").chmod(0o700)
    _install(tmp_path)
    assert (root / "etc/dray/hooks.conf").read_text() == "DRAY=/opt/dray\n"
    assert (root / "var/spool/dray").stat().st_mode & 0o777 == 0o700


@pytest.mark.root
def test_the_notes_directory_is_slurm_users(tmp_path: Path) -> None:
    root = _install(tmp_path, "SLURM_USER=nobody")
    assert (root / "var/spool/dray").owner() == "nobody"


def test_the_example_says_everything_that_the_scripts_want() -> None:
    example = (SOURCE / "hooks.conf").read_text()
    for name in ("DRAY", "TIMEOUT", *(f"{name}_SECONDS" for name in SECONDS.values())):
        assert f"\n{name}=" in example
