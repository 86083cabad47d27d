"""Every metric is documented as it is, and the document names no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from services.gateway.measuring import LABELS

ROOT = Path(__file__).parents[2]
REQUEST_TIMES = "RequestTimes"
"""A histogram of our own, whose labels are always the same."""
KINDS = {
    "Counter": "counter",
    "Gauge": "gauge",
    "SiteGauge": "gauge",
    "Histogram": "histogram",
}
HIGH_CARDINALITY = {"user", "uid", "image", "reference", "node", "job", "path", "key"}


def made() -> Iterator[tuple[str, str]]:
    """Name with labels, and kind, of each metric that the code makes."""
    for folder in ("services", "shared"):
        for path in (ROOT / folder).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                    continue
                if call.func.id == REQUEST_TIMES:
                    name = ast.literal_eval(call.args[0])
                    yield f"{name}{{{','.join(LABELS)}}}", "histogram"
                if call.func.id in KINDS and len(call.args) > 1:
                    name, _, *labels = map(ast.literal_eval, call.args)
                    of = f"{{{','.join(labels[0])}}}" if labels else ""
                    yield f"{name}{of}", KINDS[call.func.id]


def documented() -> list[tuple[str, str]]:
    text = (ROOT / "docs/metrics.md").read_text()
    return re.findall(r"^\| `(dray_[^`]+)` \| (\w+) \| \S.* \|$", text, re.MULTILINE)


def test_the_document_and_the_code_agree() -> None:
    assert sorted(documented()) == sorted(made())


def test_names_say_what_they_are_and_labels_stay_few() -> None:
    for name, kind in made():
        bare, _, labels = name.partition("{")
        assert bare.startswith("dray_")
        assert bare.endswith("_total") == (kind == "counter")
        assert bare.endswith("_seconds") or kind != "histogram"
        assert not HIGH_CARDINALITY & set(labels.rstrip("}").split(","))


def test_the_document_can_be_found() -> None:
    assert "(metrics.md)" in (ROOT / "docs/settings.md").read_text()
