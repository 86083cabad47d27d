"""The systemd units: each starts a service that there is, and systemd itself understands them."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
SERVICES = Path(__file__).parents[2] / "services"
NAMES = {f"dray-{name}.service": name for name in ("gateway", "converter", "distributor")}
NAMES["dray-agent.service"] = "node_agent"
OWN_MOUNTS = ("Protect", "Private", "ReadWritePaths", "ReadOnlyPaths", "TemporaryFileSystem")


def unit(name: str) -> configparser.SectionProxy:
    parsed = configparser.RawConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[method-assign,assignment]
    parsed.read(UNITS / name)
    return parsed["Service"]


def test_each_service_has_its_unit() -> None:
    assert {path.name for path in UNITS.glob("*.service")} == set(NAMES)
    assert set(NAMES.values()) == {path.parent.name for path in SERVICES.glob("*/__main__.py")}


@pytest.mark.parametrize(("name", "service"), NAMES.items())
def test_a_unit_starts_its_service(name: str, service: str) -> None:
    words = unit(name)["ExecStart"].split()
    assert words[1:] == ["-m", f"services.{service}", "--config", "/etc/dray/dray.yaml"]


def test_what_the_agent_mounts_is_seen_by_jobs_and_outlives_it() -> None:
    agent = unit("dray-agent.service")
    assert not [key for key in agent if key.startswith(OWN_MOUNTS)]
    assert agent["KillMode"] == "process"


@pytest.mark.parametrize("name", NAMES)
def test_systemd_understands_it(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (package systemd)")
    program = tmp_path / "python"
    program.symlink_to("/bin/true")
    copy = tmp_path / name
    text = (UNITS / name).read_text(encoding="utf-8")
    copy.write_text(text.replace("/opt/dray/bin/python", str(program)), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if name in line]
    assert told == []
    assert done.returncode == 0, done.stderr
