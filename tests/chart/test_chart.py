"""What the chart renders, for hundreds of value sets, is what Kubernetes takes and what we mean."""

import itertools
import json
import re
import shutil
import subprocess

import jsonschema
import pytest
import yaml
from helm_python import lint
from helm_python.errors import HelmError

from config.settings import Settings, load_settings
from scripts.chart_readme import rows, with_table
from tests.chart.rendering import CHART, MINIMAL, Object, files, merged, objects, of_kind, pods, validate
from todo_api.api_description import OPERATIONS

EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
DEMO = {"demo": {"enabled": True}}
ROOMY = {"database": {"maxConnections": 1000}}
SCRAM: Object = {
    "kafka": {
        "securityProtocol": "SASL_SSL",
        "sasl": {"mechanism": "SCRAM-SHA-512", "existingSecret": "todo-kafka"},
        "tls": {"caSecret": "todo-kafka-ca"},
    }
}
MUTUAL: Object = {
    "kafka": {
        "securityProtocol": "SSL",
        "tls": {"caSecret": "todo-kafka-ca", "certSecret": "todo-kafka-cert"},
    }
}
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
# As in docs/telemetry.md: none of it is for the public.
NOT_PUBLIC = {"/metrics", "/status", "/status.json", "/version"}
SETTINGS = {spec.metadata["env"] for spec in Settings.__dataclass_fields__.values()}

# Each may be on or off whatever the others are, but for what the chart refuses.
SWITCHES: dict[str, Object] = {
    "api.autoscaling": {"api": {"autoscaling": {"enabled": True}}},
    "api.relay": {"api": {"relay": {"enabled": True}}},
    "api.split": {"api": {"split": {"enabled": True, "writeAutoscaling": {"enabled": True}}}},
    "worker.keda": {"worker": {"keda": {"enabled": True}}},
    "httpRoute": {
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["a.example"]}
    },
    "kafka.sasl": SCRAM,
    "no hooks": {"migrations": {"hook": False}},
    "no policy, no account": {"networkPolicy": {"enabled": False}, "serviceAccount": {"create": False}},
    "monitoring": {"monitoring": {name: {"enabled": True} for name in VALUES["monitoring"]}},
    "plain credentials": {
        "database": {"existingSecret": "", "url": "postgres://a:b@c/d"},
        "redis": {"existingSecret": "", "url": "redis://e"},
        "auth": {"existingSecret": "", "jwtSecret": "0123456789abcdef0123456789abcdef"},
    },
}
SETS = [
    pytest.param(
        merged(MINIMAL, ROOMY, *(SWITCHES[name] for name in chosen)), id="+".join(chosen) or "minimal"
    )
    for count in (0, 1, 2, 3, len(SWITCHES))
    for chosen in itertools.combinations(SWITCHES, count)
]
SETS += [pytest.param(yaml.safe_load(file.read_text()), id=file.name) for file in EXAMPLES]

each_set = pytest.mark.parametrize("values", SETS)


def check_selectors(found):
    """Every selector picks pods of this release, and every port and backend that is named exists."""
    templates = [one["spec"]["template"] for one in of_kind(found, "Deployment")]

    def picked(labels):
        return [t for t in templates if labels.items() <= t["metadata"]["labels"].items()]

    for one in of_kind(found, "Deployment"):
        assert picked(one["spec"]["selector"]["matchLabels"]) == [one["spec"]["template"]]
    for service in of_kind(found, "Service"):
        chosen = picked(service["spec"]["selector"])
        assert chosen, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            for template in chosen:
                assert port["targetPort"] in port_names(template["spec"])
    for budget in of_kind(found, "PodDisruptionBudget"):
        assert picked(budget["spec"]["selector"]["matchLabels"])
    services = {service["metadata"]["name"] for service in of_kind(found, "Service")}
    for route in of_kind(found, "HTTPRoute"):
        assert {ref["name"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"]} <= services
    deployments = {one["metadata"]["name"] for one in of_kind(found, "Deployment")}
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for scaler in of_kind(found, kind):
            assert scaler["spec"]["scaleTargetRef"]["name"] in deployments
    for monitor in of_kind(found, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        assert len([s for s in of_kind(found, "Service") if wanted <= s["metadata"]["labels"].items()]) == 1


def port_names(spec):
    # Kubernetes looks into sidecars, too.
    sidecars = [one for one in spec.get("initContainers", []) if one.get("restartPolicy") == "Always"]
    return {
        port["name"] for container in [*spec["containers"], *sidecars] for port in container.get("ports", [])
    }


def check_restricted(name, spec):
    """The restricted Pod Security Standard, and what we add to it."""
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True, name
    assert pod["runAsUser"] > 0
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not any("hostPath" in volume for volume in spec.get("volumes", []))
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True or "-demo-" in name
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"]["cpu"]
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted <= {volume["name"] for volume in spec.get("volumes", [])}


@each_set
def test_kubernetes_takes_every_object_and_all_of_them_fit_together(values):
    found = objects(values)
    names = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(names) == len(set(names))
    for one in found:
        if not one["apiVersion"].startswith(("postgresql.cnpg.io", "kafka.strimzi.io")):
            validate(one)
    for name, spec in pods(found):
        check_restricted(name, spec)
    check_selectors(found)


@each_set
def test_replicas_are_left_to_an_autoscaler_where_there_is_one(values):
    found = objects(values)
    scaled = {
        scaler["spec"]["scaleTargetRef"]["name"]
        for kind in ("HorizontalPodAutoscaler", "ScaledObject")
        for scaler in of_kind(found, kind)
    }
    for one in of_kind(found, "Deployment"):
        assert ("replicas" in one["spec"]) is (one["metadata"]["name"] not in scaled)


@each_set
def test_a_hook_reads_only_what_exists_before_the_chart_does(values):
    found = objects(values)
    hooks = [one for one in found if "pre-install" in str(one["metadata"].get("annotations"))]
    early = {secret["metadata"]["name"]: weight(secret) for secret in of_kind(hooks, "Secret")}
    own = {secret["metadata"]["name"] for secret in of_kind(found, "Secret")} - set(early)
    for job in of_kind(hooks, "Job"):
        spec = job["spec"]["template"]["spec"]
        assert "serviceAccountName" not in spec
        for container in spec["containers"]:
            assert "envFrom" not in container
            for variable in container["env"]:
                secret = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name")
                assert secret not in own
                assert early.get(secret, -1) < weight(job)


def weight(hook):
    return int(hook["metadata"]["annotations"]["helm.sh/hook-weight"])


@each_set
def test_every_pod_of_ours_gets_settings_that_exist_and_parse(values):
    found = objects(values)
    (config,) = of_kind(found, "ConfigMap", "my-todo-api")
    assert set(config["data"]) <= SETTINGS
    load_settings("worker", config["data"] | {"DATABASE_URL": "postgres://a/b"})
    for _, spec in pods(found):
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            if container["image"].startswith(("todo-api", "registry.example/todo-api")):
                assert {variable["name"] for variable in container.get("env", [])} <= SETTINGS


REFUSED = [
    ({"demo": {"enabled": True}}, "demo.enabled brings its own"),
    ({"database": {"existingSecret": ""}}, "set database.existingSecret"),
    ({"redis": {"existingSecret": ""}}, "set redis.existingSecret"),
    ({"kafka": {"brokers": ""}}, "set kafka.brokers"),
    ({"kafka": {"securityProtocol": "SASL_SSL"}}, "kafka.securityProtocol SASL_SSL wants a user"),
    (
        {"kafka": {"sasl": {"mechanism": "PLAIN", "existingSecret": "s"}}},
        "kafka.sasl names a user, and kafka.securityProtocol PLAINTEXT has none",
    ),
    (
        {"kafka": {"tls": {"caSecret": "s"}}},
        "kafka.tls names certificates, and kafka.securityProtocol PLAINTEXT is without TLS",
    ),
    ({"auth": {"existingSecret": ""}}, "set auth.existingSecret"),
    ({"auth": {"jwtSecret": "short"}}, "at least 32 bytes"),
    ({"auth": {"jwksUrl": "https://login.example/keys"}}, "set auth.algorithms"),
    (
        {"settings": {"WEB_CONCURRENCY": "8"}},
        "settings.WEB_CONCURRENCY: the chart has values of its own for that",
    ),
    ({"database": {"poolSize": 40}}, "lower database.poolSize or the replicas, or raise max_connections"),
    ({"api": {"replicas": 4}, "database": {"poolSize": 20}}, "110 connections are needed"),
    ({"database": {"poolSize": 1}}, "is divided among api.processes"),
    ({"worker": {"replicas": 17}, **ROOMY}, "17 workers for 16 partitions"),
    ({"worker": {"keda": {"enabled": True, "maxReplicas": 20}}, **ROOMY}, "20 workers for 16 partitions"),
    ({"worker": {"keda": {"enabled": True}, "autoscaling": {"enabled": True}}, **ROOMY}, "keep one of them"),
    ({"worker": {"keda": {"enabled": True, "minReplicas": 0}}, **ROOMY}, "must be 1 or more"),
    (
        {"api": {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}, **ROOMY},
        "api.autoscaling.minReplicas is above maxReplicas",
    ),
    (
        {"worker": {"keda": {"enabled": True, "minReplicas": 9, "maxReplicas": 8}}, **ROOMY},
        "worker.keda.minReplicas is above maxReplicas",
    ),
    ({"api": {"split": {"writeAutoscaling": {"enabled": True}}}}, "writeAutoscaling needs api.split.enabled"),
    (
        {"api": {"replicas": 2, "split": {"enabled": True, "writeAutoscaling": {"enabled": True}}}},
        "150 connections are needed",
    ),
    ({"api": {"preStopSeconds": 20}}, "api.terminationGracePeriodSeconds must be above"),
    ({"worker": {"terminationGracePeriodSeconds": 25}}, "worker.terminationGracePeriodSeconds must be above"),
    ({"api": {"pdb": {"minAvailable": 1}}}, "api.pdb takes maxUnavailable or minAvailable"),
    ({"worker": {"pdb": {"minAvailable": "50%"}}}, "worker.pdb takes maxUnavailable or minAvailable"),
    ({"ingress": {"enabled": True}}, "needs ingress.hosts"),
    (
        {
            "ingress": {"enabled": True, "hosts": [{"host": "a.example"}]},
            "api": {"split": {"enabled": True}},
            **ROOMY,
        },
        "use httpRoute",
    ),
    ({"httpRoute": {"enabled": True}}, "needs httpRoute.parentRefs"),
    (
        {"kafka": {"brokers": "a:9092,b:9093"}},
        "port 9093, and the NetworkPolicy lets out to Kafka on 9092 only",
    ),
    (
        {"auth": {"jwksUrl": "https://login.example/keys", "algorithms": "RS256"}},
        "to networkPolicy.extraEgress",
    ),
    ({"settings": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}}, "to networkPolicy.extraEgress"),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_what_cannot_work_is_refused_with_the_fix(values, sentence):
    with pytest.raises(HelmError, match=re.escape(sentence)):
        files(merged(MINIMAL, values))


def test_every_refusal_of_the_chart_is_tested():
    refusals = (CHART / "templates" / "validations.yaml").read_text().count("fail ")
    # Two sentences each come from one place: about workers, budgets, autoscalers; about connections there are three.
    assert refusals == len({sentence for _, sentence in REFUSED}) - 5


@pytest.mark.parametrize(
    "values",
    [
        {"api": {"replica": 3}},
        {"api": {"replicas": "three"}},
        {"kafka": {"client": "rdkafka"}},
        {"kafka": {"brokers": "kafka"}},
        {"kafka": {"securityProtocol": "TLS"}},
        {"kafka": {"sasl": {"mechanism": "SCRAM"}}},
        {"kafka": {"tls": {"caKey": "../ca.crt"}}},
        {"image": {"digest": "latest"}},
        {"settings": {"log-level": "debug"}},
        {"ingress": {"hosts": [{"hosts": "a"}]}},
        {"api": {"autoscaling": {"enabled": True, "minReplicas": 0}}},
    ],
    ids=str,
)
def test_a_misspelled_value_is_refused_by_the_schema(values):
    with pytest.raises(HelmError):
        files(merged(MINIMAL, values))


def test_the_schema_knows_every_value_and_the_readme_lists_it():
    jsonschema.Draft7Validator(SCHEMA).validate(VALUES)
    for path, _, _ in rows(VALUES, {}):
        schema = SCHEMA
        for name in path.split("."):
            if "properties" not in schema:
                break
            schema = schema["properties"][name]
    readme = (CHART / "README.md").read_text()
    assert with_table(readme, (CHART / "values.yaml").read_text()) == readme, "run: make chart-readme"


def test_helm_finds_nothing_to_complain_of():
    found = lint(CHART)
    assert found["errors"] == []
    assert [message["error"] for message in found["messages"]] == ["icon is recommended"]


def test_a_change_of_settings_or_credentials_restarts_the_pods():
    def checksums(values):
        (worker,) = of_kind(objects(merged(DEMO, values)), "Deployment", "-worker")
        return worker["spec"]["template"]["metadata"]["annotations"]

    before = checksums({})
    assert checksums({}) == before
    other_setting = checksums({"settings": {"LOG_LEVEL": "debug"}})
    assert other_setting["checksum/config"] != before["checksum/config"]
    other_secret = checksums({"auth": {"jwtSecret": "x" * 32}})
    assert other_secret["checksum/secret"] != before["checksum/secret"]


def test_an_image_is_named_by_its_digest_when_there_is_one():
    digest = "sha256:" + "a" * 64
    (worker,) = of_kind(
        objects(merged(MINIMAL, {"image": {"digest": digest, "tag": "9"}})), "Deployment", "-worker"
    )
    assert worker["spec"]["template"]["spec"]["containers"][0]["image"] == f"todo-api@{digest}"


def test_a_key_of_an_existing_secret_may_have_another_name():
    values = merged(MINIMAL, {"database": {"existingSecret": "db-app", "existingSecretKey": "uri"}})
    (worker,) = of_kind(objects(values), "Deployment", "-worker")
    env = worker["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "db-app", "key": "uri"}}} in env


def test_with_existing_secrets_the_chart_holds_no_credential():
    assert of_kind(objects(MINIMAL), "Secret") == []


def backend(route, method, path):
    """The Service that a gateway sends such a request to: exact first, then the longest prefix, then a method."""
    found = []
    for rule in route["spec"]["rules"]:
        for match in rule["matches"]:
            wanted = match["path"]["value"]
            exact = match["path"]["type"] == "Exact"
            fits = path == wanted if exact else f"{path}/".startswith(f"{wanted}/")
            if fits and match.get("method", method) == method:
                found.append(((exact, len(wanted), "method" in match), rule["backendRefs"][0]["name"]))
    return max(found)[1] if found else None


def test_split_reads_and_writes_go_to_pods_of_their_own_by_method():
    found = objects(merged(MINIMAL, ROOMY, SWITCHES["api.split"], SWITCHES["httpRoute"]))
    (route,) = of_kind(found, "HTTPRoute")
    serves = {
        s["metadata"]["name"]: s["spec"]["selector"].get("todo-api/serves") for s in of_kind(found, "Service")
    }
    for method, path in OPERATIONS:
        if path not in NOT_PUBLIC:
            for prefix in ("", "/v1"):
                wanted = "reads" if method in ("GET", "HEAD", "OPTIONS") else "writes"
                if prefix + path != "/v1/":
                    assert serves[backend(route, method, prefix + path)] == wanted, (method, path)


def public(found):
    """Say whether a path reaches the API from outside, by what is there of Ingress and HTTPRoute."""
    if routes := of_kind(found, "HTTPRoute"):
        return lambda path: backend(routes[0], "GET", path) is not None
    (ingress,) = of_kind(found, "Ingress")
    paths = ingress["spec"]["rules"][0]["http"]["paths"]
    return lambda path: any(
        path == one["path"]
        if one["pathType"] == "Exact"
        else f"{path}/".startswith(f"{one['path'].rstrip('/')}/")
        for one in paths
    )


INGRESS: Object = {"ingress": {"enabled": True, "hosts": [{"host": "todo.example"}]}}


@pytest.mark.parametrize("door", [SWITCHES["httpRoute"], INGRESS], ids=["httpRoute", "ingress"])
def test_what_is_for_the_public_is_let_in_and_nothing_else(door):
    is_public = public(objects(merged(MINIMAL, door)))
    for _, path in OPERATIONS:
        assert is_public(path) is (path not in NOT_PUBLIC), path
        assert is_public(f"/v1{path}") is (path not in (*NOT_PUBLIC, "/")), path


def test_an_ingress_that_is_given_its_paths_passes_those():
    values = {"ingress": {"enabled": True, "hosts": [{"host": "todo.example", "paths": ["/todos"]}]}}
    is_public = public(objects(merged(MINIMAL, values)))
    assert is_public("/todos")
    assert not is_public("/docs")


@each_set
def test_figures_are_on_a_port_that_only_prometheus_and_the_probe_use(values):
    found = objects(values)
    (config,) = of_kind(found, "ConfigMap", "todo-api")
    (scraped,) = [s for s in of_kind(found, "Service") if "todo-api/scraped" in s["metadata"]["labels"]]
    # Headless: whatever service.type says, the port is not opened to the outside.
    assert (scraped["spec"]["type"], scraped["spec"]["clusterIP"]) == ("ClusterIP", "None")
    is_relayed = "PUBLISHER_SOCKET" in str(of_kind(found, "Deployment"))
    names = ["admin", "relay"] if is_relayed else ["admin"]
    assert [port["name"] for port in scraped["spec"]["ports"]] == names
    for monitor in of_kind(found, "ServiceMonitor"):
        assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == names
    for service in of_kind(found, "Service"):
        if service is not scraped:
            assert "admin" not in str(service["spec"]["ports"])
    for one in of_kind(found, "Deployment"):
        if one["metadata"]["labels"].get("app.kubernetes.io/component") == "api":
            assert set(names) <= port_names(one["spec"]["template"]["spec"])
            api = one["spec"]["template"]["spec"]["containers"][0]
            ports = {port["name"]: str(port["containerPort"]) for port in api["ports"]}
            assert ports["admin"] == config["data"]["ADMIN_PORT"]
            assert api["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "admin"}
            # The other two ask whether it gets on with its requests.
            assert api["livenessProbe"]["httpGet"]["port"] == api["startupProbe"]["httpGet"]["port"] == "http"


def test_who_may_scrape_may_not_call_the_api_and_who_may_call_it_not_scrape():
    proxy, prometheus = ({"podSelector": {"matchLabels": {"role": role}}} for role in ("proxy", "prometheus"))
    values = {"networkPolicy": {"ingressFrom": [proxy], "metricsFrom": [prometheus]}}
    (policy,) = of_kind(objects(merged(MINIMAL, values)), "NetworkPolicy", "-api")
    sources = {rule["ports"][0]["port"]: rule["from"] for rule in policy["spec"]["ingress"]}
    assert proxy in sources["http"]
    assert prometheus not in sources["http"]
    assert sources["admin"] == [prometheus]


def test_helm_test_reaches_the_api_where_few_may():
    values = {"networkPolicy": {"ingressFrom": [{"podSelector": {"matchLabels": {"role": "proxy"}}}]}}
    found = objects(merged(MINIMAL, values))
    (policy,) = of_kind(found, "NetworkPolicy", "-api")
    (test,) = of_kind(found, "Pod", "-test-ready")
    allowed = [one["podSelector"]["matchLabels"] for one in policy["spec"]["ingress"][0]["from"]]
    assert {"role": "proxy"} in allowed
    assert any(labels.items() <= test["metadata"]["labels"].items() for labels in allowed)


def test_the_relay_starts_before_the_api_and_ends_after_it():
    found = objects(merged(MINIMAL, SWITCHES["api.relay"]))
    (api,) = of_kind(found, "Deployment", "-api")
    spec = api["spec"]["template"]["spec"]
    (relay,) = spec["initContainers"]
    # A sidecar of Kubernetes: the others start once it has started, and it is ended once they have ended.
    assert relay["restartPolicy"] == "Always"
    assert relay["startupProbe"]["exec"]["command"] == ["todo", "health", "--relay"]
    sockets = [
        next(one["value"] for one in container["env"] if one["name"] == "PUBLISHER_SOCKET")
        for container in (relay, spec["containers"][0])
    ]
    assert len(set(sockets)) == 1


def test_a_rollout_takes_no_pod_away_before_another_is_ready_and_lets_the_proxies_forget_it():
    for one in of_kind(objects(MINIMAL), "Deployment"):
        assert one["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    (api,) = of_kind(objects(MINIMAL), "Deployment", "-api")
    spec = api["spec"]["template"]["spec"]
    assert spec["containers"][0]["lifecycle"]["preStop"] == {"sleep": {"seconds": 5}}
    assert spec["terminationGracePeriodSeconds"] > 5 + 25


def test_the_scaler_looks_at_the_group_that_the_worker_joins():
    (scaler,) = of_kind(objects(merged(MINIMAL, ROOMY, SWITCHES["worker.keda"])), "ScaledObject")
    metadata = scaler["spec"]["triggers"][0]["metadata"]
    assert metadata["consumerGroup"] == "todo-commands.worker"
    assert metadata["topic"] == "todo-commands"


@pytest.mark.parametrize(
    ("switch", "kind", "path"),
    [
        ({"api": {"autoscaling": {"enabled": True}}}, "HorizontalPodAutoscaler", "behavior"),
        ({"worker": {"autoscaling": {"enabled": True}}}, "HorizontalPodAutoscaler", "behavior"),
        (
            {"worker": {"keda": {"enabled": True}}},
            "ScaledObject",
            "advanced.horizontalPodAutoscalerConfig.behavior",
        ),
    ],
    ids=["api.autoscaling", "worker.autoscaling", "worker.keda"],
)
def test_how_fast_each_autoscaler_goes_up_and_down_can_be_set(switch, kind, path):
    ((part, scaler),) = switch.items()
    (name,) = scaler
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 77}}
    values = merged(MINIMAL, ROOMY, switch, {part: {name: {"behavior": behavior}}})
    (found,) = of_kind(objects(values), kind)
    validate(found)
    spec = found["spec"]
    for key in path.split("."):
        spec = spec[key]
    assert spec["scaleDown"]["stabilizationWindowSeconds"] == 77


@pytest.mark.parametrize(
    "name",
    [
        "ADMIN_PORT",
        "KAFKA_BROKERS",
        "DATABASE_URL",
        "REDIS_URL",
        "JWT_SECRET",
        "KAFKA_SASL_PASSWORD",
        "KAFKA_SSL_CA_FILE",
        "KAFKA_SECURITY_PROTOCOL",
    ],
)
def test_a_setting_cannot_be_given_twice_nor_a_credential_in_the_open(name):
    with pytest.raises(HelmError, match=f"settings.{name}: the chart has values of its own"):
        files(merged(MINIMAL, {"settings": {name: "x"}}))


def test_the_jobs_go_where_they_are_told_and_get_what_they_need():
    where: Object = {
        "nodeSelector": {"pool": "small"},
        "tolerations": [{"key": "batch", "operator": "Exists"}],
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
        "podLabels": {"team": "todo"},
        "priorityClassName": "low",
    }
    what: Object = {
        "extraEnv": [{"name": "PGSSLROOTCERT", "value": "/certs/ca.crt"}],
        "extraVolumes": [{"name": "certs", "secret": {"secretName": "db-ca"}}],
        "extraVolumeMounts": [{"name": "certs", "mountPath": "/certs"}],
    }
    found = objects(merged(MINIMAL, {"jobs": where | what}))
    jobs = of_kind(found, "Job")
    assert len(jobs) == 2
    (test,) = of_kind(found, "Pod", "-test-ready")
    for template in [*(job["spec"]["template"] for job in jobs), test]:
        assert template["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
        assert template["metadata"]["labels"]["team"] == "todo"
        for name in ("nodeSelector", "tolerations", "priorityClassName"):
            assert template["spec"][name] == where[name]
    for job in jobs:
        validate(job)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert what["extraEnv"][0] in container["env"]
        assert what["extraVolumeMounts"][0] in container["volumeMounts"]
        assert what["extraVolumes"][0] in job["spec"]["template"]["spec"]["volumes"]
    validate(test)


def test_split_reads_and_writes_grow_each_by_themselves():
    split = {"enabled": True, "writeAutoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 7}}
    reads = {"enabled": True, "minReplicas": 4, "maxReplicas": 9}
    found = objects(merged(MINIMAL, ROOMY, {"api": {"split": split, "autoscaling": reads}}))
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]: (one["spec"]["minReplicas"], one["spec"]["maxReplicas"])
        for one in of_kind(found, "HorizontalPodAutoscaler")
    }
    assert scaled == {"my-todo-api-api-read": (4, 9), "my-todo-api-api-write": (3, 7)}


def test_the_notes_send_nobody_to_a_token_that_could_not_be_signed():
    keys = {"jwksUrl": "https://login.example/keys", "algorithms": "RS256", "existingSecret": ""}
    egress = {"extraEgress": [{"ports": [{"protocol": "TCP", "port": 443}]}]}
    assert "todo token" in files(MINIMAL)["NOTES.txt"]
    notes = files(merged(MINIMAL, {"auth": keys, "networkPolicy": egress}))["NOTES.txt"]
    assert "todo token" not in notes
    assert "https://login.example/keys" in notes


def test_the_notes_say_where_it_is_and_warn_of_the_demo():
    demo = files(DEMO)["NOTES.txt"]
    assert "port-forward service/my-todo-api 8080:80" in demo
    assert "without persistence" in demo
    assert "Anybody can sign" in demo
    outside = files(merged(MINIMAL, {"ingress": {"enabled": True, "hosts": [{"host": "todo.example"}]}}))[
        "NOTES.txt"
    ]
    assert "http://todo.example/todos" in outside
    assert "WARNING" not in outside


def test_objects_of_the_user_are_rendered_with_the_values_of_the_release():
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-extra"}}
    found = objects(
        merged(MINIMAL, {"extraObjects": [extra, yaml.safe_dump(extra).replace("extra", "more")]})
    )
    assert of_kind(found, "ConfigMap", "my-extra")
    assert of_kind(found, "ConfigMap", "my-more")


def test_sidecars_volumes_and_variables_of_the_user_reach_the_pods():
    mine = {
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumes": [{"name": "mine", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "mine", "mountPath": "/mine"}],
        "sidecars": [{"name": "beside", "image": "busybox"}],
        "initContainers": [{"name": "before", "image": "busybox"}],
    }
    found = objects(merged(MINIMAL, {"api": mine, "worker": mine}))
    for name in ("-api", "-worker"):
        (one,) = of_kind(found, "Deployment", name)
        spec = one["spec"]["template"]["spec"]
        assert {"name": "TZ", "value": "UTC"} in spec["containers"][0]["env"]
        assert {"name": "mine", "mountPath": "/mine"} in spec["containers"][0]["volumeMounts"]
        assert [c["name"] for c in spec["initContainers"]] == ["before"]
        assert spec["containers"][-1]["name"] == "beside"
        validate(one)


def test_rules_and_dashboards_are_those_of_the_project():
    observability = CHART.parents[1] / "docker" / "observability"
    found = objects(merged(MINIMAL, SWITCHES["monitoring"]))
    (rule,) = of_kind(found, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((observability / "prometheus" / "rules.yml").read_text())
    (dashboards,) = of_kind(found, "ConfigMap", "-dashboards")
    files = sorted((observability / "grafana" / "dashboards").glob("*.json"))
    assert dashboards["data"].keys() == {file.name for file in files}
    for file in files:
        assert json.loads(dashboards["data"][file.name]) == json.loads(file.read_text())


def test_promtool_takes_the_rules_as_they_are_rendered(tmp_path):
    (rule,) = of_kind(objects(merged(MINIMAL, SWITCHES["monitoring"])), "PrometheusRule")
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
    promtool = shutil.which("promtool")
    assert promtool, "promtool comes with scripts/setup.sh test"
    checked = subprocess.run(
        [promtool, "check", "rules", "--lint-fatal", "rules.yml"],
        cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "SUCCESS" in checked.stdout


def reaching_kafka(found):
    """Yield the pod and the container of each program of ours that speaks with Kafka."""
    for name, spec in pods(found):
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            if container["name"] in ("api", "relay", "worker", "topics"):
                yield name, spec, container


def from_secret(secret, key):
    return {"valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def test_whatever_speaks_with_kafka_gets_the_user_and_the_authority():
    found = objects(merged(MINIMAL, ROOMY, SWITCHES["api.relay"], SCRAM))
    programs = list(reaching_kafka(found))
    assert sorted(container["name"] for _, _, container in programs) == ["api", "relay", "topics", "worker"]
    for _, spec, container in programs:
        env = {variable.pop("name"): variable for variable in map(dict, container["env"])}
        assert env["KAFKA_SECURITY_PROTOCOL"] == {"value": "SASL_SSL"}
        assert env["KAFKA_SASL_MECHANISM"] == {"value": "SCRAM-SHA-512"}
        for name in ("KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"):
            assert env[name] == from_secret("todo-kafka", name)
        assert env["KAFKA_SSL_CA_FILE"] == {"value": "/etc/todo/kafka-ca/ca.crt"}
        assert {"name": "kafka-ca", "secret": {"secretName": "todo-kafka-ca"}} in spec["volumes"]
        mount = {"name": "kafka-ca", "mountPath": "/etc/todo/kafka-ca", "readOnly": True}
        assert mount in container["volumeMounts"]
    (config,) = of_kind(found, "ConfigMap", "my-todo-api")
    assert not any(name.startswith(("KAFKA_S", "KAFKA_SSL")) for name in config["data"])


def test_a_certificate_of_ours_is_mounted_and_a_user_may_be_named_in_the_open():
    for _, spec, container in reaching_kafka(objects(merged(MINIMAL, MUTUAL))):
        env = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert env["KAFKA_SSL_CERT_FILE"] == "/etc/todo/kafka-cert/tls.crt"
        assert env["KAFKA_SSL_KEY_FILE"] == "/etc/todo/kafka-cert/tls.key"
        assert not any(name.startswith("KAFKA_SASL") for name in env)
        assert {"name": "kafka-cert", "secret": {"secretName": "todo-kafka-cert"}} in spec["volumes"]
    named = {"kafka": {"sasl": {"username": "ann", "existingSecretPasswordKey": "password"}}}
    for _, _, container in reaching_kafka(objects(merged(MINIMAL, SCRAM, named))):
        assert {"name": "KAFKA_SASL_USERNAME", "value": "ann"} in container["env"]
        password = {"name": "KAFKA_SASL_PASSWORD", **from_secret("todo-kafka", "password")}
        assert password in container["env"]


def test_keda_logs_in_as_the_worker_does_unless_it_is_told_otherwise():
    def keda(*values):
        found = objects(merged(MINIMAL, ROOMY, SWITCHES["worker.keda"], *values))
        (scaler,) = of_kind(found, "ScaledObject")
        (trigger,) = scaler["spec"]["triggers"]
        return trigger, [one["spec"] for one in of_kind(found, "TriggerAuthentication")]

    trigger, made = keda(SCRAM)
    assert (trigger["metadata"]["sasl"], trigger["metadata"]["tls"]) == ("scram_sha512", "enable")
    assert trigger["authenticationRef"] == {"name": "my-todo-api-kafka"}
    assert {one["parameter"]: (one["name"], one["key"]) for one in made[0]["secretTargetRef"]} == {
        "username": ("todo-kafka", "KAFKA_SASL_USERNAME"),
        "password": ("todo-kafka", "KAFKA_SASL_PASSWORD"),
        "ca": ("todo-kafka-ca", "ca.crt"),
    }
    trigger, made = keda(SCRAM, {"kafka": {"sasl": {"username": "ann", "mechanism": "PLAIN"}}})
    assert trigger["metadata"]["sasl"] == "plaintext"
    assert made[0]["env"] == [
        {"parameter": "username", "name": "KAFKA_SASL_USERNAME", "containerName": "worker"}
    ]
    trigger, made = keda(MUTUAL)
    assert "sasl" not in trigger["metadata"]
    assert [one["parameter"] for one in made[0]["secretTargetRef"]] == ["ca", "cert", "key"]
    trigger, made = keda(SCRAM, {"worker": {"keda": {"authenticationRef": "mine"}}})
    assert (trigger["authenticationRef"], made) == ({"name": "mine"}, [])
    trigger, made = keda({"kafka": {"securityProtocol": "SSL"}})
    assert (trigger["metadata"]["tls"], trigger.get("authenticationRef"), made) == ("enable", None, [])
    trigger, made = keda()
    assert not {"sasl", "tls"} & trigger["metadata"].keys()
    assert (trigger.get("authenticationRef"), made) == (None, [])
