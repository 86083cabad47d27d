"""The room that a distributor tells of an image directory."""

from pathlib import Path

from prometheus_client import REGISTRY

from services.distributor.app import build
from services.distributor.space import tell_free
from shared.bus.embedded import EmbeddedBus
from shared.config import Settings


def room(system: str) -> float | None:
    return REGISTRY.get_sample_value("dray_image_directory_free_bytes", {"system": system})


def test_a_directory_that_was_not_looked_at_is_not_told_of_as_full(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"data_dir": tmp_path, "systems": {"unmounted": {"image_dir": tmp_path / "absent"}}}
    )
    build(settings, EmbeddedBus([]), serve_health=False)
    assert room("unmounted") is None
    tell_free("unmounted", 4096.0)
    assert room("unmounted") == 4096.0
