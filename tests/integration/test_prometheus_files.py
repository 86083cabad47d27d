"""Prometheus' own tool over what a site installs: settings, rules, alerts, dashboards' queries."""

import json
from pathlib import Path

import pytest
import yaml

from tests.support.monitoring import (
    PROMETHEUS,
    ROOT,
    RULE_TESTS,
    RULES,
    dashboard_expressions,
    need_prometheus,
    promtool,
)


@pytest.fixture(scope="module", autouse=True)
def _prometheus() -> None:
    need_prometheus()


def test_the_sites_settings_can_be_used() -> None:
    said = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert f"{len(RULES)} rule files found" in said
    assert "WARNING" not in said


def test_the_settings_of_compose_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text((ROOT / "deploy/docker/prometheus.yml").read_text())
    (tmp_path / "rules").symlink_to(PROMETHEUS / "rules")
    said = promtool("check", "config", tmp_path / "prometheus.yml")
    assert f"{len(RULES)} rule files found" in said


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_alerts_fire_for_their_case_and_no_other(file: Path) -> None:
    promtool("test", "rules", file)


def test_a_false_expectation_is_found_out(tmp_path: Path) -> None:
    case = yaml.safe_load((PROMETHEUS / "tests/storage.yml").read_text())
    case["rule_files"] = [str(file) for file in RULES]
    case["tests"] = case["tests"][:1]
    case["tests"][0]["promql_expr_test"] = case["tests"][0]["promql_expr_test"][:2]
    case["tests"][0]["promql_expr_test"][1]["exp_samples"] = []
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(json.dumps(case))
    with pytest.raises(AssertionError, match="DrayImageDirectoryNearlyFull"):
        promtool("test", "rules", wrong)


def test_every_query_of_a_dashboard_is_promql(tmp_path: Path) -> None:
    found = list(dashboard_expressions())
    rules = [{"record": f"panel:{n}", "expr": expr} for n, (_, expr) in enumerate(found)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(found)} rules found" in promtool("check", "rules", file)
