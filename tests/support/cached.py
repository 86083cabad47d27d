"""Images with recipes, placed where an agent looks, and agents with a cache for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from services.distributor.sidecars import write_sidecars
from shared.config import Settings
from shared.events import JobAllocated, NodeImage
from shared.image.recipe import PackOptions, Recipe
from tests.support.agents import Place, ask
from tests.support.noise import noise
from tests.support.packing import build_image, tar_of
from tests.support.squashfs import PlacedImage

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Made(PlacedImage):
    """An image that was made of layers."""

    recipe: Recipe
    content: bytes

    @property
    def sidecar(self) -> Path:
        return self.path.with_suffix(".json")

    def restore(self) -> None:
        self.path.write_bytes(self.content)


def layer(seed: int, megabytes: float = 1.0) -> bytes:
    return tar_of((f"data{seed}", noise(int(megabytes * MEGABYTE), seed)))


def make_image(place: Place, layers: Sequence[bytes], greeting: str = "hello\n") -> Made:
    """In the image directory, as a distributor leaves it; its last layer is the greeting."""
    root = place.root / "made" / str(len(tuple((place.root / "images").glob("*.squashfs"))))
    root.mkdir(parents=True)
    built = build_image([*layers, tar_of(("greeting", greeting.encode()))], root, PackOptions())
    recipe = built.recipe
    final = place.root / "images" / f"{recipe.image_id}.squashfs"
    final.parent.mkdir(exist_ok=True)
    built.path.rename(final)
    final.chmod(0o644)
    write_sidecars(final, recipe)
    return Made(
        path=final,
        image_id=recipe.image_id,
        content_digest=recipe.content_digest,
        size=recipe.size,
        recipe=recipe,
        content=final.read_bytes(),
    )


def with_cache(place: Place, **cache: Any) -> Place:
    """The same node, with such settings of its cache."""
    always = {"dir": str(cache_dir(place)), "policy": "copy", "reserve_bytes": 0}
    return replace(place, cache={**always, **cache})


def caching(place: Place, mount: str, **cache: Any) -> Settings:
    return with_cache(place, **cache).settings(mount)


def cache_dir(place: Place) -> Path:
    return place.root / "cache"


def cached(place: Place, image: Made) -> Path:
    return cache_dir(place) / f"{image.image_id}.squashfs"


async def mounted(place: Place, image: Made, job: str, wait: float = 30.0) -> dict[str, Any]:
    status, view = await ask(place, "POST", "/v1/mounts", image.request(job, wait))
    assert status == 200, view
    return view


async def ended(place: Place, job: str) -> None:
    assert await ask(place, "DELETE", f"/v1/jobs/{job}") == (204, {})


async def copies(place: Place) -> list[dict[str, Any]]:
    _, status = await ask(place, "GET", "/v1/status")
    found: list[dict[str, Any]] = status["cache"]["copies"]
    return found


def allocation(job_id: str, *images: PlacedImage) -> JobAllocated:
    wanted = tuple(
        NodeImage(image_id=image.image_id, content_digest=image.content_digest, size=image.size)
        for image in images
    )
    return JobAllocated(
        correlation_id=job_id, node="n1", job_id=job_id, system="local", images=wanted
    )


class Counted:
    """How much a metric of this process has grown since."""

    def __init__(self, name: str, **labels: str) -> None:
        self._name = name
        self._labels = labels
        self._before = self._now()

    def _now(self) -> float:
        return REGISTRY.get_sample_value(self._name, self._labels) or 0.0

    @property
    def grown(self) -> float:
        return self._now() - self._before
