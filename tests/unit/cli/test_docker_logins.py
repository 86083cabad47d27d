"""Logins that docker keeps: in its file, with its helpers, and as identity tokens."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.docker_logins import IDENTITY_TOKEN, Kept, docker_login
from cli.errors import CliError
from shared.api import LoginsView, LoginView
from tests.support.scripted_gateway import Script, says
from tests.support.views import NOW

HOST = "registry.example.org:5000"
HUB_KEY = "https://index.docker.io/v1/"


def auth(name: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


ADA = auth("ada", "pa:ss")
# As docker's own helpers do: the registry on stdin, the login or what went wrong on stdout.
HELPER = f"""#!/bin/sh
[ "$1" = get ] || exit 9
read -r server
case "$server" in
  {HOST}) echo '{{"ServerURL":"x","Username":"eve","Secret":"kept"}}';;
  {HUB_KEY}) echo '{{"ServerURL":"x","Username":"<token>","Secret":"refresh"}}';;
  silly.example.org) echo '{{"Secret": "hunter2"';;
  locked.example.org) echo 'the keychain is locked'; exit 1;;
  *) echo 'credentials not found in native keychain'; exit 1;;
esac
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's configuration file, still to be written, and a helper called `chest`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-chest"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.defpath}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


@pytest.mark.parametrize(
    ("config", "registry", "kept"),
    [
        ({"auths": {HOST: ADA}}, HOST, Kept("ada", "pa:ss")),
        ({"auths": {f"https://{HOST}/v1/": ADA}}, HOST, Kept("ada", "pa:ss")),
        ({"auths": {HUB_KEY: ADA}}, None, Kept("ada", "pa:ss")),
        ({"auths": {HUB_KEY: ADA}}, "docker.io", Kept("ada", "pa:ss")),
        ({"auths": {HOST: {"username": "a", "password": "b"}}}, HOST, Kept("a", "b")),
        (
            {"auths": {HOST: {**auth("0", ""), "identitytoken": "it"}}},
            HOST,
            Kept(IDENTITY_TOKEN, "it"),
        ),
        ({"auths": {HOST: {}}, "credsStore": "chest"}, HOST, Kept("eve", "kept")),
        ({"credHelpers": {HOST: "chest"}, "credsStore": "none"}, HOST, Kept("eve", "kept")),
        ({"credsStore": "chest"}, None, Kept(IDENTITY_TOKEN, "refresh")),
        ({"auths": {"a.org": ADA}, "credsStore": "chest"}, "a.org", Kept("ada", "pa:ss")),
    ],
)
def test_a_login_is_found_where_docker_keeps_it(
    docker: Path, config: dict[str, Any], registry: str | None, kept: Kept
) -> None:
    docker.write_text(json.dumps(config))
    assert docker_login(registry) == kept


@pytest.mark.parametrize(
    ("content", "registry", "says"),
    [
        (None, HOST, "there is no"),
        ("[]", HOST, "JSON was expected"),
        ('{"auths": {"hunter2', HOST, "JSON was expected"),
        ({}, HOST, f"docker login {HOST}"),
        ({"auths": {HOST: {}}}, HOST, "has no login"),
        ({"auths": {f"not-{HOST}": ADA, "example.org:5000": ADA}}, HOST, "has no login"),
        ({"auths": {HOST: {"auth": "hunter2!"}}}, HOST, "damaged"),
        ({"auths": {HOST: {"registrytoken": "hunter2"}}}, HOST, "nobody can renew"),
        ({"credsStore": "chest"}, "other.org", "nor with docker-credential-chest"),
        ({"credsStore": "chest"}, "silly.example.org", "answers with no login"),
        ({"credsStore": "chest"}, "locked.example.org", "the keychain is locked"),
        ({"credsStore": "missing"}, HOST, "not in your PATH"),
        ({"credsStore": "../../bin/sh"}, HOST, "cannot be the name of a program"),
        ({"credHelpers": {HOST: ["sh"]}}, HOST, "cannot be the name of a program"),
    ],
)
def test_what_is_missing_or_wrong_is_told_without_secrets(
    docker: Path, content: Any, registry: str, says: str
) -> None:
    if content is not None:
        docker.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(CliError, match=says) as caught:
        docker_login(registry)
    assert "hunter2" not in str(caught.value)
    assert caught.value.code != "internal_error"


def test_dray_login_takes_docker_s(docker: Path, served: tuple[str, Script]) -> None:
    url, script = served
    view = LoginView(registry=HOST, username="eve", checked_at=NOW, expires_at=NOW)
    script.on("POST /api/v1/logins", says(view))
    script.on("GET /api/v1/logins", says(LoginsView(items=(view,))))
    docker.write_text(json.dumps({"credHelpers": {HOST: "chest"}}))

    def dray(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from cli.main import main; main()", *arguments]
        env = os.environ | {"DRAY_URL": url}
        return subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    done = dray("login", "--from-docker", HOST)
    assert done.returncode == 0, done.stderr
    assert script.asked[-1][1] == {"registry": HOST, "username": "eve", "password": "kept"}
    assert "kept" not in done.stdout.replace("kept until", "") + done.stderr
    done = dray("login", "--from-docker", "-u", "ada", HOST)
    assert (done.returncode, "leave --username" in done.stderr) == (2, True)
