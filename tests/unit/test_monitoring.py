"""Alerts, runbooks and dashboards against each other and against the metrics that there are."""

import re
from collections import Counter
from itertools import combinations
from typing import Any, Final

import pytest
import yaml

from services.gateway.standing.worries import CODES
from tests.support.containers import compose_variables, read_compose, volumes
from tests.support.monitoring import (
    GRAFANA,
    PROMETHEUS,
    ROOT,
    RULE_TESTS,
    RULES,
    dashboards,
    documented,
    expressions,
    labels_in,
    names_in,
    panels,
    rules,
)

ALERTS: Final = {rule["alert"]: rule for rule in rules("alert")}
METRICS: Final = documented()
OF_EVERY_SCRAPE: Final = {"job", "instance", "le"}
OF_HISTOGRAMS: Final = ("_bucket", "_count", "_sum")
COMPOSE: Final = read_compose(dict.fromkeys(compose_variables(), "x"))["services"]


def code_of(alert: str) -> str:
    """DrayNoConverter is no_converter in the runbook and on the dashboard."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", alert.removeprefix("Dray")).lower()


def metric_of(name: str) -> str:
    for suffix in OF_HISTOGRAMS:
        base = name.removesuffix(suffix)
        if base != name and METRICS.get(base, (set(), ""))[1] == "histogram":
            return base
    return name


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    text = (ROOT / "docs/runbooks.md").read_text()
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert set(headings) == {code_of(name) for name in ALERTS}


def test_every_worry_of_the_dashboard_has_its_alert_and_runbook() -> None:
    assert set(CODES) <= {code_of(name) for name in ALERTS}


@pytest.mark.parametrize("name", tuple(ALERTS))
def test_an_alert_says_what_it_means_and_where_help_is(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{code_of(name)}"
    assert not alert["annotations"]["summary"].endswith(".")
    assert alert["annotations"]["description"].endswith(".")
    # What was found damaged once stays damaged; all else has to last.
    assert ("for" in alert) != ("[1d]" in alert["expr"])


def test_every_alert_is_tried() -> None:
    tried = set(re.findall(r'alertname="(\w+)"', "".join(f.read_text() for f in RULE_TESTS)))
    assert tried == set(ALERTS)
    night = yaml.safe_load((PROMETHEUS / "tests/quiet_night.yml").read_text())
    used = {f"{PROMETHEUS}/tests/{file}" for file in night["rule_files"]}
    assert used == {f"{PROMETHEUS}/tests/../rules/{file.name}" for file in RULES}


@pytest.mark.parametrize(("where", "expr"), tuple(expressions()))
def test_what_an_expression_reads_exists(where: str, expr: str) -> None:
    recorded = {rule["record"] for rule in rules("record")}
    read = {name for name in names_in(expr) if ":" in name or name.startswith("dray_")}
    assert {name for name in read if ":" in name} <= recorded, where
    assert {metric_of(name) for name in read if ":" not in name} <= METRICS.keys(), where
    for name, labels in labels_in(expr):
        if metric_of(name) in METRICS:
            assert labels <= METRICS[metric_of(name)][0] | OF_EVERY_SCRAPE, where


def test_the_check_of_names_can_fail() -> None:
    expr = 'sum by (state) (rate(dray_nothing_total{x="dray_y"}[5m])) / on (job) dray_pulls'
    assert {name for name in names_in(expr) if "dray" in name} == {
        "dray_nothing_total",
        "dray_pulls",
    }
    assert list(labels_in(expr)) == [("dray_nothing_total", {"x"})]
    assert metric_of("dray_pull_seconds_count") == "dray_pull_seconds"
    assert metric_of("dray_http_streams_count") not in METRICS


def test_every_recorded_figure_is_used() -> None:
    for rule in rules("record"):
        users = [where for where, expr in expressions() if rule["record"] in names_in(expr)]
        assert users, rule["record"]


def test_dashboards_can_be_told_apart() -> None:
    boards = dashboards()
    assert len(boards) == 6
    assert {board["uid"] for board in boards.values()} == {f"dray-{name}" for name in boards}
    assert len({board["title"] for board in boards.values()}) == len(boards)
    assert all(board["tags"] == ["dray"] and board["id"] is None for board in boards.values())


@pytest.mark.parametrize("name", tuple(dashboards()))
def test_a_dashboard_is_whole(name: str) -> None:
    board = dashboards()[name]
    assert board["schemaVersion"] == 39  # Grafana 10.3; later ones read it, too
    assert board["templating"]["list"][0]["type"] == "datasource"
    numbers = Counter(panel["id"] for panel in board["panels"])
    assert set(numbers.values()) == {1}
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    for one, other in combinations([panel["gridPos"] for panel in board["panels"]], 2):
        assert not _overlap(one, other)


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def _jobs(file: str) -> dict[str, dict[str, Any]]:
    found = yaml.safe_load((ROOT / file).read_text())["scrape_configs"]
    return {job["job_name"]: job for job in found}


def test_compose_scrapes_what_a_site_scrapes() -> None:
    site, compose = _jobs("deploy/prometheus/prometheus.yml"), _jobs("deploy/docker/prometheus.yml")
    assert site.keys() == compose.keys()
    for name in site:
        for key in ("metrics_path", "params"):
            assert site[name].get(key) == compose[name].get(key)
    for job in site.values():
        for file in job["file_sd_configs"][0]["files"]:
            assert yaml.safe_load((PROMETHEUS / file).read_text())[0]["targets"]
    for job in compose.values():
        hosts = [t.partition(":")[0] for c in job.get("static_configs", ()) for t in c["targets"]]
        hosts += [host for c in job.get("dns_sd_configs", ()) for host in c["names"]]
        assert hosts
        assert set(hosts) <= COMPOSE.keys()


def test_monitoring_in_compose_is_asked_for_and_finds_its_files() -> None:
    extra = {name for name, spec in COMPOSE.items() if spec.get("profiles") == ["monitoring"]}
    assert extra == {"prometheus", "grafana"}
    mounted = {v.target: ROOT / v.source for name in extra for v in volumes(COMPOSE[name])}
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/dray.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/dray.yml").read_text())[
        "providers"
    ]
    assert mounted[provider["options"]["path"]] == GRAFANA / "dashboards"
    assert mounted["/etc/grafana/provisioning"] == GRAFANA / "provisioning"
    assert mounted["/etc/prometheus/rules"] == PROMETHEUS / "rules"
    home = COMPOSE["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.partition(provider["options"]["path"] + "/")[2] == "overview.json"
    plugins = (ROOT / "deploy/docker/enabled_plugins").read_text()
    assert "rabbitmq_prometheus" in plugins
