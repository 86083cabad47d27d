"""Prometheus' rules and Grafana's dashboards as data, and Prometheus' own tools over them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
PROMETHEUS: Final = ROOT / "deploy/prometheus"
GRAFANA: Final = ROOT / "deploy/grafana"
RULES: Final = sorted(PROMETHEUS.glob("rules/*.yml"))
RULE_TESTS: Final = sorted(PROMETHEUS.glob("tests/*.yml"))
DASHBOARDS: Final = sorted(GRAFANA.glob("dashboards/*.json"))
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SELECTED: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}")
_OF_GRAFANA: Final = {"$__rate_interval": "5m", "$system": ".*", "$job": ".*"}


def need_prometheus() -> None:
    """Skip the test where Prometheus and its tool are not installed."""
    if shutil.which("promtool") is None or shutil.which("prometheus") is None:
        pytest.skip("needs the Debian package prometheus")


def promtool(*arguments: str | Path, text: str | None = None) -> str:
    """What promtool said; fails where it found a fault."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules of a kind: `alert` or `record`."""
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def dashboards() -> dict[str, dict[str, Any]]:
    return {file.stem: json.loads(file.read_text()) for file in DASHBOARDS}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something: no headings of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and each expression with Grafana's variables filled in."""
    for name, board in dashboards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                expr = target["expr"]
                for variable, value in _OF_GRAFANA.items():
                    expr = expr.replace(variable, value)
                yield f"{name}: {panel['title']}", expr


def expressions() -> Iterator[tuple[str, str]]:
    for rule in (*rules("record"), *rules("alert")):
        yield rule.get("alert") or rule["record"], rule["expr"]
    yield from dashboard_expressions()


def names_in(expr: str) -> set[str]:
    """Metrics and recorded figures that an expression reads, and PromQL's own words."""
    bare = _GROUPING.sub(" ", re.sub(r"\{[^}]*\}", " ", _QUOTED.sub('""', expr)))
    return set(_NAME.findall(bare))


def labels_in(expr: str) -> Iterator[tuple[str, set[str]]]:
    """Each metric with the labels by which it is selected."""
    for name, matchers in _SELECTED.findall(_QUOTED.sub('""', expr)):
        yield name, set(re.findall(r"(\w+)\s*(?:=|!)", matchers))


def documented() -> dict[str, tuple[set[str], str]]:
    """Labels and kind of each metric of docs/metrics.md."""
    text = (ROOT / "docs/metrics.md").read_text()
    found = re.findall(r"^\| `(dray_\w+)(?:\{([^}]*)\})?` \| (\w+) \|", text, re.MULTILINE)
    return {name: (set(filter(None, labels.split(","))), kind) for name, labels, kind in found}
