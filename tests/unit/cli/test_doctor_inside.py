"""What `dray doctor` says of entering images on a node."""

import os
from pathlib import Path

import pytest

from cli import doctor_inside
from cli.findings import Finding, Verdict, broken
from shared.settings.inside import InsideSettings

IMAGES = ";".join(f"{letter * 64},{'d' * 64},1" for letter in "ab")


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "_unprivileged_userns=0"),
    ],
)
def test_each_sysctl_that_keeps_users_out_is_told_with_the_cure(
    name: str, value: str, wanted: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.parent.mkdir()
    assert list(doctor_inside.sysctls(tmp_path)) == []
    file.write_text(f"{value}\n")
    [found] = doctor_inside.sysctls(tmp_path)
    assert (found.verdict, name.replace("/", ".") in found.text) == (Verdict.NOTE, True)
    assert found.advice.startswith("For root: sysctl -w ")
    assert found.advice.endswith(wanted)
    file.write_text("7\n")
    assert list(doctor_inside.sysctls(tmp_path)) == []


def test_an_installation_without_the_helper_in_c_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    missing = doctor_inside.dray_enter(tmp_path)
    assert (missing.verdict, "gcc" in missing.advice) == (Verdict.NOTE, True)
    for directory in (
        tmp_path,
        tmp_path / "bin",
    ):  # beside our own commands, or where the user looks
        directory.mkdir(exist_ok=True)
        program = directory / "dray-enter"
        program.touch(mode=0o755)
        found = doctor_inside.dray_enter(tmp_path)
        assert (found.verdict, str(program) in found.text) == (Verdict.OK, True)


def test_only_an_agent_of_root_s_puts_images_together(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    assert doctor_inside.agent(socket).verdict is Verdict.NOTE
    (tmp_path / "insides").mkdir()
    assert doctor_inside.agent(socket).verdict is Verdict.OK


def _of_job(monkeypatch: pytest.MonkeyPatch, socket: Path, **env: str) -> list[Finding]:
    for name in list(os.environ):
        if name.startswith(("DRAY_", "SLURM_")):
            monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return list(doctor_inside.job(socket))


def test_a_job_learns_which_of_its_images_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "agent.sock"
    job = {"SLURM_JOB_ID": "7", "DRAY_IMAGES": IMAGES, "DRAY_IMAGE": "alpine,solver:1"}
    assert _of_job(monkeypatch, socket) == []
    without = _of_job(monkeypatch, socket, **job)
    assert all("no agent of root's" in each.text for each in without)
    place = tmp_path / "insides" / f"7@{'a' * 64}"
    place.mkdir(parents=True)
    [first, second] = _of_job(monkeypatch, socket, **job)
    assert "alpine is not put together for job 7" in first.text
    assert second.text.startswith("solver:1 is not")
    (place / "mnt").touch()  # a file, and no namespace any more: as a reboot leaves it
    if os.geteuid() != 0:
        assert "only the scheduler's plugin" in _of_job(monkeypatch, socket, **job)[0].text
        (place / "user").touch()
    stale = _of_job(monkeypatch, socket, **job)[0]
    assert (stale.verdict, "cannot be entered" in stale.text) == (Verdict.BROKEN, True)
    [odd] = _of_job(monkeypatch, socket, **{**job, "DRAY_IMAGES": "nonsense"})
    assert (odd.verdict, "nonsense" in odd.text) == (Verdict.BROKEN, True)


def test_what_cannot_be_tried_is_told_as_the_caller_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "absent"))
    [first, *rest] = doctor_inside.examined(None, broken)
    assert (first.about, first.verdict) == ("namespaces", Verdict.BROKEN)
    assert "cannot tell" in first.text
    assert "overlay" not in {each.about for each in rest}


def test_what_the_site_has_in_each_image(tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    settings = InsideSettings(site_fs=(str(tmp_path), "/nowhere/at/all"), modules=modules)
    here, absent, none = doctor_inside.of_site(settings)
    assert [each.verdict for each in (here, absent, none)] == ["ok", "note", "note"]
    assert "/nowhere/at/all: No such file" in absent.text
    modules.mkdir()
    (modules / "gpu.yaml").touch()
    assert [*doctor_inside.of_site(settings)][-1].text == f"1 in {modules}"
