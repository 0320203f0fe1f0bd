"""The chart, rendered by Helm's own code, and what Kubernetes would say of the result."""

import copy
import json
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import yaml
from helm_python import Chart

CHART: Final = Path(__file__).parents[2] / "helm" / "todo-api"
KUBERNETES: Final = ("1.31", "1.34", "1.37")
Object = dict[str, Any]

# What must be given; nothing more.
MINIMAL: Final[Object] = {
    "database": {"existingSecret": "todo-database"},
    "redis": {"existingSecret": "todo-redis"},
    "kafka": {"brokers": "kafka:9092"},
    "auth": {"existingSecret": "todo-auth"},
}
# The kinds of others, as far as we write them: kubernetes-validate knows only those of Kubernetes itself.
_LABELS: Final = {"type": "object", "required": ["matchLabels"]}
_OTHERS: Final[dict[str, Object]] = {
    "ServiceMonitor": {"required": ["selector", "endpoints"], "properties": {"selector": _LABELS}},
    "PodMonitor": {"required": ["selector", "podMetricsEndpoints"], "properties": {"selector": _LABELS}},
    "PrometheusRule": {
        "required": ["groups"],
        "properties": {"groups": {"type": "array", "minItems": 1, "items": {"required": ["name", "rules"]}}},
    },
    "ScaledObject": {
        "required": ["scaleTargetRef", "triggers", "minReplicaCount", "maxReplicaCount"],
        "properties": {
            "triggers": {
                "items": {"properties": {"metadata": {"additionalProperties": {"type": "string"}}}},
            }
        },
    },
    "TriggerAuthentication": {
        "required": ["secretTargetRef"],
        "properties": {
            "secretTargetRef": {"minItems": 1, "items": {"required": ["parameter", "name", "key"]}},
            "env": {"items": {"required": ["parameter", "name", "containerName"]}},
        },
    },
    "HTTPRoute": {
        "required": ["parentRefs", "rules"],
        "properties": {"rules": {"items": {"required": ["backendRefs"]}, "minItems": 1}},
    },
}


@lru_cache(maxsize=1)
def _chart() -> Chart:
    return Chart.load(CHART)


def merged(*layers: Object) -> Object:
    """Return the values of all layers, the later ones over the earlier."""
    result: Object = {}
    for layer in layers:
        for name, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(name), dict)
            result[name] = merged(result[name], value) if both else copy.deepcopy(value)
    return result


def files(values: Object) -> dict[str, str]:
    """Return what each template gives. Raises helm_python's errors with what the chart says against the values."""
    rendered = _chart().render(values=values, name="my", namespace="shop")
    return {name.removeprefix("todo-api/templates/"): text for name, text in rendered.items()}


def objects(values: Object) -> list[Object]:
    """Return every object of the release, tests and hooks included. They are shared: do not change them."""
    return _objects(json.dumps(values, sort_keys=True))


@cache
def _objects(values: str) -> list[Object]:
    return [
        document
        for name, text in files(json.loads(values)).items()
        if name.endswith(".yaml")
        for document in yaml.load_all(text, yaml.CSafeLoader)
        if document
    ]


def of_kind(found: list[Object], kind: str, name: str = "") -> list[Object]:
    return [one for one in found if one["kind"] == kind and one["metadata"]["name"].endswith(name)]


def pods(found: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield the name and the spec of every pod: of deployments, of jobs, and by itself."""
    for one in found:
        if one["kind"] == "Pod":
            yield one["metadata"]["name"], one["spec"]
        elif one["kind"] in ("Deployment", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


@cache
def _validate(text: str) -> None:
    one = json.loads(text)
    if one["kind"] in _OTHERS:
        jsonschema.Draft7Validator(_OTHERS[one["kind"]]).validate(one["spec"])
        return
    for version in KUBERNETES:
        kubernetes_validate.validate(one, version, strict=True)


def validate(one: Object) -> None:
    """Raise when an API server of one of ``KUBERNETES`` would refuse the object, unknown fields included."""
    _validate(json.dumps(one, sort_keys=True))
