"""The jobs of this node on disk, so that a restarted agent knows whose the mounts are."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import Field, ValidationError

from services.node_agent.callers import Caller
from shared.files import publishing, remove_stale_partials, sync_directory
from shared.logging import get_logger
from shared.models import ImageId, Instant, JobId, Tolerant

log = get_logger(__name__)


class JobRecord(Tolerant):
    """One job. Without an owner it is the site's: announced by the scheduler or by root."""

    job_id: JobId
    owner: int | None
    announced_at: Instant | None
    prepared_at: Instant | None = None
    user: int | None = None
    devices: dict[str, str] = Field(default_factory=dict)
    images: tuple[ImageId, ...]
    caller: Caller | None = None
    """The process that it ends with."""


class _OnDisk(JobRecord):
    """With the boot in which it was written: no job outlives its node's boot."""

    boot: str


class JobFiles:
    """One small JSON file per job."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        # One thread: what was asked for later is also done later.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="job-files")

    async def save(self, record: JobRecord) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, record)

    async def remove(self, job_id: JobId) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._unlink, job_id)

    async def load(self) -> list[JobRecord]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read_all)

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    def _path(self, job_id: JobId) -> Path:
        # A job's id comes from outside: its hash can name nothing but a file in here.
        return self._directory / f"{hashlib.sha256(job_id.encode()).hexdigest()}.json"

    def _write(self, record: JobRecord) -> None:
        with publishing(self._path(record.job_id)) as file:
            kept = _OnDisk(**record.model_dump(), boot=_this_boot())
            file.write(kept.model_dump_json().encode())

    def _unlink(self, job_id: JobId) -> None:
        self._path(job_id).unlink(missing_ok=True)
        sync_directory(self._directory)

    def _read_all(self) -> list[JobRecord]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_stale_partials(self._directory)
        records = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                kept = _OnDisk.model_validate_json(path.read_bytes())
            except ValidationError as exc:
                log.warning("job_file_unreadable", path=str(path), error=str(exc))
            else:
                if kept.boot == _this_boot():
                    records.append(JobRecord.model_validate(kept.model_dump()))
                    continue
            path.unlink()
        return records


def _this_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
