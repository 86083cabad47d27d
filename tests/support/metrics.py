"""What a metric of this process says, and by how much something moves it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


def value(name: str, labels: Mapping[str, str] | None = None) -> float:
    return REGISTRY.get_sample_value(name, dict(labels or {})) or 0.0


@contextmanager
def moved(
    name: str, labels: Mapping[str, str] | None = None, *, by: float | None = 1
) -> Iterator[None]:
    """Fails unless what is done meanwhile moves it by so much; None: upwards."""
    before = value(name, labels)
    yield
    change = value(name, labels) - before
    assert change > 0 if by is None else change == by, (name, labels, change)


@dataclass(frozen=True, slots=True)
class Scraped:
    """What a process said under /metrics."""

    samples: tuple[Sample, ...]

    def of(self, name: str, **labels: str) -> float:
        """All that have these labels, added up."""
        wanted = labels.items()
        found = [each for each in self.samples if each.name == name]
        return sum(each.value for each in found if wanted <= each.labels.items())


def scraped(text: str) -> Scraped:
    families = text_string_to_metric_families(text)
    return Scraped(tuple(sample for family in families for sample in family.samples))
