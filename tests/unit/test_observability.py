"""What Prometheus and Grafana get with the project: it asks for what is exported, and promtool finds it right."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from todo_api import api_metrics, relay_metrics
from todo_worker import worker_metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "observability"
RULES_FILE = FOLDER / "prometheus" / "rules.yml"
RULES = [rule for group in yaml.safe_load(RULES_FILE.read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARDS = {
    path.name: json.loads(path.read_text()) for path in (FOLDER / "grafana" / "dashboards").iterdir()
}
METRICS = {
    metric.name: metric for metric in (*api_metrics.METRICS, *worker_metrics.METRICS, *relay_metrics.METRICS)
}
# Of prometheus_client, beside the worker's own.
STANDARD = {"process_cpu_seconds_total"}
# Of nginx's exporter, made of its stub_status.
NGINX = {f"nginx_connections_{name}" for name in ("accepted", "active", "handled", "waiting")}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
# What Prometheus and Kubernetes put on every series.
ATTACHED = {"namespace", "instance", "job"}
SELECTOR = re.compile(r"\b([a-z_:]+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions():
    """Every expression there is, by where it stands."""
    found = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in RULES]
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            found += [(f"{name}: {panel['title']}", target["expr"]) for target in panel["targets"]]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                found.append((f"{name}: ${variable['name']}", variable["query"]["query"]))
    return found


def asked(expression):
    """The names of metrics in an expression."""
    return set(re.findall(r"\b(?:todo_|todo:|process_|nginx_)\w*(?::\w+)*", expression))


def metric_of(name):
    return METRICS.get(name) or METRICS.get(re.sub(r"_(bucket|count|sum)$", "", name))


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_every_expression_asks_for_what_is_exported(where, expression):
    names = asked(expression)
    assert names or expression.startswith("vector("), where
    for name in names - RECORDED - STANDARD - NGINX:
        metric = metric_of(name)
        assert metric is not None, name
        assert (metric.name != name) == bool(metric.buckets), f"{name}: a histogram has _bucket, _count, _sum"
        grouped = re.findall(r"by \(([^)]*)\)", expression)
        for label in {label.strip() for group in grouped for label in group.split(",")} - ATTACHED:
            known = {label for one in names for label in getattr(metric_of(one), "labels", ())}
            assert label in known | {"le", "version"}, label
    for name, matchers in SELECTOR.findall(expression):
        for label, value in MATCHER.findall(matchers):
            metric = metric_of(name)
            if label == "le":
                assert float(value) in metric.buckets
            elif label not in ATTACHED and name in METRICS:
                assert label in metric.labels


def test_everything_exported_is_looked_at():
    seen = {metric_of(name) for _, expression in expressions() for name in asked(expression)}
    assert {metric.name for metric in METRICS.values() if metric not in seen} == set()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_how_urgent_it_is_and_what_happened(alert):
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert set(alert["annotations"]) == {"summary", "description"}


def test_the_documentation_has_every_alert_and_no_other():
    text = (ROOT / "docs" / "telemetry.md").read_text()
    section = text.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE)
    assert documented == [(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS]


def test_every_alert_has_a_test():
    tests = "".join(path.read_text() for path in (FOLDER / "prometheus").glob("*_test.yml"))
    assert {rule["alert"] for rule in ALERTS} == set(re.findall(r"alertname: (\w+)", tests))


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "--lint-fatal", "rules.yml"),
        ("test", "rules", "rules_test.yml", "rules_days_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_it_right(arguments):
    promtool = shutil.which("promtool")
    assert promtool, "promtool comes with scripts/setup.sh test"
    done = subprocess.run(
        [promtool, *arguments], cwd=FOLDER / "prometheus", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_provisioned(name):
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == name.removesuffix(".json")
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels(dashboard):
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(places) == len(set(places)), "panels lie on each other"


def test_grafana_finds_its_source_and_its_dashboards():
    provisioning = FOLDER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "todo.yml").read_text())["providers"]
    assert provider["options"]["path"]
