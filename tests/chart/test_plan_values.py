"""What ``todo plan --values`` writes is what the chart takes, and both count connections alike."""

import pytest
import yaml
from click.testing import CliRunner
from helm_python.errors import HelmError

from scripts.verbs.plan import plan
from tests.chart.rendering import CHART, MINIMAL, merged, objects, of_kind, validate


def planned(*arguments):
    """Return the values of a plan."""
    answer = CliRunner().invoke(plan, [*arguments, "--values"])
    assert answer.exit_code == 0, answer.output
    return yaml.safe_load(answer.output)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rps", "1"],
        ["--rps", "1000000"],
        ["--rps", "100000", "--payload", "all", "--gzip-share", "0"],
        ["--rps", "500000", "--relay", "--client", "kafka-python", "--processes-per-pod", "8"],
        ["--rps", "100000000"],
    ],
    ids=" ".join,
)
def test_the_chart_renders_what_is_planned(arguments):
    values = planned(*arguments)
    found = objects(merged(MINIMAL, values))
    for one in found:
        validate(one)
    (api,) = of_kind(found, "Deployment", "-api")
    assert api["spec"]["replicas"] == values["api"]["replicas"]
    (container,) = [one for one in api["spec"]["template"]["spec"]["containers"] if one["name"] == "api"]
    assert container["resources"]["requests"]["cpu"] == values["api"]["resources"]["requests"]["cpu"]
    (scaled,) = of_kind(found, "ScaledObject")
    assert scaled["spec"]["maxReplicaCount"] == values["worker"]["keda"]["maxReplicas"]
    data = next(one["data"] for one in of_kind(found, "ConfigMap") if "KAFKA_PARTITIONS" in one["data"])
    assert data["KAFKA_PARTITIONS"] == str(values["kafka"]["partitions"])
    assert data["KAFKA_CLIENT"] == values["kafka"]["client"]
    assert data["DB_POOL_SIZE"] == str(values["database"]["poolSize"])
    assert data["WEB_CONCURRENCY"] == str(values["api"]["processes"])


def test_a_plan_over_the_example_for_production_is_taken():
    production = yaml.safe_load((CHART / "examples" / "production.yaml").read_text())
    values = planned("--rps", "100000")
    (api,) = of_kind(objects(merged(production, values)), "Deployment", "-api")
    assert api["spec"]["replicas"] == values["api"]["replicas"]


def test_the_chart_needs_exactly_as_many_connections_as_the_plan_says():
    values = planned("--rps", "10000000")
    needed = values["database"]["maxConnections"]
    with pytest.raises(HelmError, match=f"{needed} connections are needed"):
        objects(merged(MINIMAL, values, {"database": {"maxConnections": needed - 1}}))
