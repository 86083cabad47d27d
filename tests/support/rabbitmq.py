"""A private RabbitMQ node: own ports, directories and name service, stopped with the tests.

Runs as whoever runs the tests. The script in /usr/sbin insists on root or the package's user, so
the server's own script is called; RUNNING_UNDER_SYSTEMD makes it exec the Erlang machine, so that
our child's process id is the broker's.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest

from tests.support.ports import free_port
from tests.support.processes import STOP_SECONDS, ServerProcess

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
START_SECONDS = 60.0


def need_rabbitmq() -> None:
    """Skip the test where no broker is installed."""
    if not SERVER.exists() or shutil.which("epmd") is None:
        pytest.skip("needs the Debian package rabbitmq-server")


class RabbitNode(ServerProcess):
    """One broker that can be stopped, killed, frozen and started again with the data it had."""

    user = "dray"
    password = "s3cret-in-the-url"

    def __init__(
        self, directory: Path, advanced: str = "[].", *, with_metrics: bool = False
    ) -> None:
        self._directory = directory
        self._names: subprocess.Popen[bytes] | None = None
        self._names_port = free_port()
        self.port = free_port()
        self.metrics_port = free_port() if with_metrics else None
        home = directory / "home"
        home.mkdir(parents=True)
        cookie = home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        plugins = "rabbitmq_prometheus" if with_metrics else ""
        (directory / "enabled_plugins").write_text(f"[{plugins}].\n")
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            f"default_user = {self.user}\n"
            f"default_pass = {self.password}\n"
            "log.console = true\n"
            "log.file = false\n"
            "disk_free_limit.absolute = 50MB\n" + self._listen_for_metrics()
        )
        (directory / "advanced.config").write_text(advanced)
        self._environment = {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._names_port),
            "RABBITMQ_NODENAME": "test@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "generated"),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2"
            ),
            "RUNNING_UNDER_SYSTEMD": "1",
        }

    @property
    def url(self) -> str:
        return f"amqp://{self.user}:{self.password}@127.0.0.1:{self.port}/"

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> Self:
        if self._names is None:
            self._names = subprocess.Popen(
                ["epmd", "-port", str(self._names_port), "-address", "127.0.0.1"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        with (self._directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [SERVER],
                env=self._environment,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait_until_ready(self._process)
        return self

    def discard(self) -> None:
        """End everything; what the broker stored is of no more use."""
        self.kill()
        if self._names is not None:
            self._names.terminate()
            self._names.wait(STOP_SECONDS)
            self._names = None

    def _listen_for_metrics(self) -> str:
        if self.metrics_port is None:
            return ""
        return f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {self.metrics_port}\n"

    def _wait_until_ready(self, broker: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if broker.poll() is not None or time.monotonic() > end:
                log = (self._directory / "broker.log").read_text(errors="replace")
                self.discard()
                message = f"RabbitMQ did not start:{os.linesep}{log[-4000:]}"
                raise RuntimeError(message)
            time.sleep(0.02)

    def _answers(self) -> bool:
        """Whether the broker greets a client: it listens before it can serve."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.settimeout(5)
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1) == b"\x01"
        except OSError:
            return False
