"""Debian's docker-registry as a private child process: plain, with a password file, or with TLS."""

import ctypes
import http.client
import json
import os
import secrets
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.ports import free_port
from tests.support.processes import ServerProcess
from tests.support.token_server import TokenServer

BINARY = Path("/usr/bin/docker-registry")
START_SECONDS = 15.0


class DebianRegistry(ServerProcess):
    """`with DebianRegistry(tmp_path) as registry:`; tests.support.images.Pusher fills it."""

    def __init__(
        self,
        directory: Path,
        *,
        login: tuple[str, str] | None = None,
        others: Mapping[str, str] | None = None,
        tls: tuple[Path, Path] | None = None,
        clients: Path | None = None,
        tokens: TokenServer | None = None,
    ) -> None:
        """`login` is a user and password that it lets in, `others` are more of them; without one
        it lets everybody in, or whom `tokens` does. `tls` is certificate and key, `clients` who
        signs the certificates that it wants to see."""
        if not BINARY.exists():
            pytest.skip("needs a real registry: install Debian's package docker-registry")
        self.directory = directory
        self.login = login
        self.logins = {**dict([login] if login else []), **(others or {})}
        self.tls = tls
        self.clients = clients
        self.tokens = tokens
        self.port = free_port()

    @property
    def host(self) -> str:
        """What references begin with."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def start(self) -> None:
        """Start it (again); returns when it listens."""
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "config.json"  # JSON is YAML, too
        config.write_text(json.dumps(self._config()))
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [BINARY, "serve", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.defpath, "OTEL_TRACES_EXPORTER": "none"},
            )
        try:
            self._wait_until_it_listens(self._process)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_it_listens(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if process.poll() is not None:
                break
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
            try:
                connection.connect()
            except OSError:
                time.sleep(0.01)
            else:
                return
            finally:
                connection.close()
        log = (self.directory / "log").read_text(errors="replace")
        raise RuntimeError(f"docker-registry did not start:\n{log[-2000:]}")

    def _config(self) -> dict[str, object]:
        server: dict[str, object] = {"addr": self.host, "secret": secrets.token_hex(16)}
        if self.tls:
            files: dict[str, object] = {"certificate": str(self.tls[0]), "key": str(self.tls[1])}
            if self.clients:
                files["clientcas"] = [str(self.clients)]
            server["tls"] = files
        config: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.directory / "data")},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": server,
        }
        if self.logins:
            users = self.directory / "htpasswd"
            lines = [f"{name}:{bcrypt(password)}\n" for name, password in self.logins.items()]
            users.write_text("".join(lines))
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(users)}}
        if self.tokens:
            config["auth"] = {"token": self.tokens.for_registry()}
        return config


def bcrypt(password: str) -> str:
    """The only hash that the registry's password file accepts, made by the system's libcrypt."""
    try:
        library = ctypes.CDLL("libcrypt.so.1")
    except OSError:
        pytest.skip("needs bcrypt: install Debian's package libcrypt1")
    library.crypt.restype = ctypes.c_char_p
    salt = secrets.token_hex(11)
    hashed: bytes | None = library.crypt(password.encode(), f"$2b$05${salt}".encode())
    if hashed is None or not hashed.startswith(b"$2b$"):
        pytest.skip("needs bcrypt in libcrypt (libxcrypt)")
    return hashed.decode()


def self_signed(directory: Path, *names: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and these names, its own authority, and its key."""
    directory.mkdir(parents=True, exist_ok=True)
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subjects = ",".join(["IP:127.0.0.1", *(f"DNS:{name}" for name in names)])
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", f"subjectAltName={subjects}", "-out", str(certificate)]
    try:
        subprocess.run([*command, "-keyout", str(key)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs a certificate: install Debian's package openssl")
    return certificate, key
