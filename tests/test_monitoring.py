"""The dashboard and the alert rules: every metric that they name is one of ours, and they are shaped as their readers ask."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.utils import timezone

from aleph.metrics import REGISTRY
from aleph.run import BASE_DIR
from billing.models import AuditRound
from chat.tasks import sweep
from tests.test_metrics import state

FOLDER = Path(BASE_DIR) / "docs" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]] + [
    rule["expr"] for rule in RULES
]


def exported() -> set[str]:
    AuditRound.objects.create(ended_at=timezone.now())
    sweep()
    families = {each.name: each.type for each in REGISTRY.collect()}
    names = {name for name in state().names | set(families) if name.startswith("aleph_")}
    for name, kind in families.items():
        if kind == "counter":
            names.add(f"{name}_total")
        if kind == "histogram":
            names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return names


def test_they_name_only_what_the_product_exports(db: None) -> None:
    named = {name for expression in EXPRESSIONS for name in re.findall(r"\baleph_\w+", expression)}
    assert len(named) > 20
    assert named <= exported()


def test_the_handbook_tells_of_every_metric_that_they_name() -> None:
    handbook = (Path(BASE_DIR) / "docs" / "operations.md").read_text()
    for expression in EXPRESSIONS:
        for name in re.findall(r"\baleph_\w+", expression):
            assert name.removesuffix("_bucket") in handbook, name


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_every_process_says_alike_is_not_added_up(expression: str) -> None:
    """The state of the database is the same in all processes: a bare sum would count it once for each."""
    shared = re.findall(r"(\w+)(?: by \([\w, ]+\))? ?\((aleph_(?!http|open_streams)\w+)", expression)
    assert all(function in ("max", "min") for function, _name in shared)
    assert expression.count("(") == expression.count(")")


def test_rules_say_how_bad_it_is_and_what() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    assert [each["name"] for each in DASHBOARD["__inputs"]] == ["DS_PROMETHEUS"]
    assert DASHBOARD["id"] is None
    assert DASHBOARD["schemaVersion"] >= 38
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        place = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not place & taken, panel["title"]
        taken |= place
    for panel in PANELS:
        assert panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${DS_PROMETHEUS}"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_loads_the_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", FOLDER / "alerts.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
