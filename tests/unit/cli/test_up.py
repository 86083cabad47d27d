"""`dray up` before it starts anything: settings, the lock, the warning."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.errors import UsageError
from cli.up import _build, _make_own_directories, _tell, _warn_if_open, settings_for
from shared.errors import MissingDependencyError
from tests.support.scripted_gateway import scripted_agent

HOLDER = """
import sys
from pathlib import Path
from cli.up import _alone
with _alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DRAY_")]:
        monkeypatch.delenv(name)


def test_without_a_word_it_serves_one_system_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    settings = settings_for(None, None, None)
    assert settings.gateway.listen == "127.0.0.1:7600"
    assert settings.data_dir == Path("/var/lib/dray")
    assert settings.agent.system in settings.systems


def test_image_directories_among_its_own_data_are_there_from_the_start(tmp_path: Path) -> None:
    config = tmp_path / "dray.yaml"
    mine, shared = tmp_path / "data/images", tmp_path / "mounted/later"
    config.write_text(f"systems: {{a: {{image_dir: {mine}}}, b: {{image_dir: {shared}}}}}\n")
    _make_own_directories(settings_for(config, None, tmp_path / "data"))
    assert mine.is_dir()
    assert not shared.exists(), "a file system that is not mounted is not written beneath"


def test_an_ordinary_user_s_data_go_where_xdg_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/u/data")
    settings = settings_for(None, None, None)
    assert settings.data_dir == Path("/home/u/data/dray")
    assert settings.systems["local"].image_dir == Path("/home/u/data/dray/images")
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/home/u")
    assert settings_for(None, None, None).data_dir == Path("/home/u/.local/share/dray")


def test_flags_go_before_the_file_and_the_file_before_what_is_usual(tmp_path: Path) -> None:
    config = tmp_path / "dray.yaml"
    config.write_text(
        f"data_dir: {tmp_path}/site\ngateway: {{listen: '127.0.0.1:1234'}}\n"
        f"systems: {{daint: {{image_dir: {tmp_path}/daint}}}}\n"
    )
    settings = settings_for(config, None, None)
    assert settings.data_dir == tmp_path / "site"
    assert settings.gateway.listen == "127.0.0.1:1234"
    assert settings.agent.system == "daint"
    flagged = settings_for(config, "127.0.0.1:99", tmp_path / "flag")
    assert flagged.data_dir == tmp_path / "flag"
    assert flagged.gateway.listen == "127.0.0.1:99"


def test_the_command_line_s_own_variables_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAY_URL", "http://gateway:7600")
    monkeypatch.setenv("DRAY_SOCKET", "/run/dray/agent.sock")
    assert settings_for(None, None, Path("/data")).data_dir == Path("/data")


@pytest.mark.parametrize("listen", ["foo", "7600", "127.0.0.1:", ":7600", "h:70000"])
def test_a_senseless_address_is_refused_by_its_option(listen: str) -> None:
    with pytest.raises(UsageError, match=r"^--listen: write HOST:PORT, for example 127"):
        settings_for(None, listen, None)


def _up(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", "up", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_second_one_on_the_same_data_is_refused_until_the_first_has_died(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        second = _up("--data", str(tmp_path))
        assert second.returncode == 1
        assert f"another `dray up` (process {first.pid}) works on {tmp_path}" in second.stderr
        first.kill()
    third = subprocess.run(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert third.stdout == "held\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = _up("--data", str(tmp_path / "file/inside"))
    assert refused.returncode == 1
    assert "choose another place with --data" in refused.stderr


def test_a_file_is_no_place_for_data(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = _up("--data", str(tmp_path / "file"))
    assert refused.returncode == 2
    assert refused.stderr == f"dray: --data: {tmp_path}/file is a file; name a directory [usage]\n"


def test_what_other_commands_do_not_find_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site.sock"
    monkeypatch.setattr("cli.defaults.SITE_SOCKETS", (site,))
    monkeypatch.setattr("cli.defaults.SITE_GATEWAY_SOCKETS", (tmp_path / "gateway.sock",))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    usual, elsewhere = tmp_path / "dray", tmp_path / "else where"
    for data in (usual, elsewhere):
        (data / "agent").mkdir(parents=True)

    def told(listen: str | None, data: Path) -> list[str]:
        _tell(settings_for(None, listen, data))
        first, *rest = capsys.readouterr().out.splitlines()
        assert first.startswith("Dray is up: http://")
        return rest

    with scripted_agent(str(usual / "agent/agent.sock")):
        assert told(None, usual) == []
        assert told("0.0.0.0:7700", usual)[1:] == ["  export DRAY_URL=http://127.0.0.1:7700"]
        assert told("127.0.0.1:7700", elsewhere)[1:] == [
            "  export DRAY_URL=http://127.0.0.1:7700",
            f"  export DRAY_SOCKET='{elsewhere}/agent/agent.sock'",
        ]
        with scripted_agent(str(site)):  # another one's agent would be found first
            assert told(None, usual)[1:] == [f"  export DRAY_SOCKET={usual}/agent/agent.sock"]
        with scripted_agent(str(usual / "gateway.sock")):
            assert told("0.0.0.0:7700", usual) == []
            with scripted_agent(str(elsewhere / "gateway.sock")):
                assert told(None, elsewhere)[1] == (
                    f"  export DRAY_URL='unix://{elsewhere}/gateway.sock'"
                )
            with scripted_agent(str(tmp_path / "gateway.sock")):  # the site's comes first
                assert told(None, usual)[1:] == [f"  export DRAY_URL=unix://{usual}/gateway.sock"]


def test_a_small_installation_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.up.find_spec", lambda name: None if name == "isal" else name)
    with pytest.raises(MissingDependencyError, match=r"need isal, .*pip install 'dray\[all\]'"):
        _build(settings_for(None, None, tmp_path))


@pytest.mark.parametrize(
    ("listen", "warned"),
    [
        ("0.0.0.0:0", True),
        ("[::]:0", True),
        ("gateway.example.org:0", True),
        ("127.0.0.1:0", False),
        ("[::1]:0", False),
        ("localhost:0", False),
    ],
)
def test_an_address_that_others_reach_is_warned_about(
    listen: str, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _warn_if_open(listen)
    assert ("without encryption" in capsys.readouterr().err) is warned
