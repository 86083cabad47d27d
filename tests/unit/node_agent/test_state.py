"""Job files: back as they were, and never anywhere but in their directory."""

from pathlib import Path

import pytest

from services.node_agent import state
from services.node_agent.state import JobFiles, JobRecord

IMAGE = "a" * 64


def record(job_id: str) -> JobRecord:
    return JobRecord(job_id=job_id, owner=1000, announced_at=None, images=(IMAGE,))


@pytest.mark.parametrize("job_id", ["1", "a..", "4711[3]", "x:y", "J" * 128])
async def test_every_valid_job_id_is_one_file(tmp_path: Path, job_id: str) -> None:
    directory = tmp_path / "jobs"
    files = JobFiles(directory)
    assert await files.load() == []
    await files.save(record(job_id))
    await files.save(record(job_id))
    assert await files.load() == [record(job_id)]
    assert [path.parent for path in tmp_path.rglob("*") if path.is_file()] == [directory]
    await files.remove(job_id)
    await files.remove(job_id)
    assert list(directory.iterdir()) == []


async def test_a_file_that_cannot_be_read_is_removed_and_the_others_count(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    await files.load()
    await files.save(record("good"))
    (tmp_path / "bad.json").write_text('{"job_id": "../x"}', encoding="utf-8")
    assert await files.load() == [record("good")]
    assert not (tmp_path / "bad.json").exists()


async def test_no_job_outlives_its_node_s_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = JobFiles(tmp_path)
    await files.load()
    await files.save(record("before"))
    monkeypatch.setattr(state, "_this_boot", lambda: "another")
    assert await files.load() == []
    assert list(tmp_path.iterdir()) == []
