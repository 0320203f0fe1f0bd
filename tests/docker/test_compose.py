"""The compose files are valid, and what they name exists."""

import json
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import jsonschema
import pytest
import yaml
from dotenv import dotenv_values

from config.settings import Settings, load_settings

FOLDER = Path(__file__).parents[2] / "docker"
# In the order in which compose is given them.
FILES = [FOLDER / f"docker-compose{name}.yml" for name in ("", ".scale", ".relay")]
# From github.com/compose-spec/compose-spec, Apache-2.0.
SCHEMA = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
NAMES = {spec.metadata["env"] for spec in Settings.__dataclass_fields__.values()}

each_file = pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)


def merged() -> dict[str, Any]:
    """The services of all files together."""
    services: dict[str, Any] = {}
    for file in FILES:
        services = over(services, yaml.safe_load(file.read_text())["services"])
    return services


def over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge as compose does, as far as these files need it: maps by their keys, anything else is replaced."""
    result = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict):
            result[key] = over(below[key], above[key])
        else:
            assert not isinstance(below[key], list), "compose merges lists in its own ways"
    return result


def test_no_file_is_forgotten():
    assert sorted(FILES) == sorted(FOLDER.glob("docker-compose*.yml"))


@each_file
def test_a_file_is_valid_by_the_compose_specification(file):
    jsonschema.Draft7Validator(SCHEMA).validate(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("name", sorted(merged()))
def test_a_service_depends_on_services_in_a_state_they_can_reach(name):
    services = merged()
    for other, wanted in services[name].get("depends_on", {}).items():
        condition = wanted["condition"]
        if condition == "service_healthy":
            assert "test" in services[other].get("healthcheck", {}) or is_ours(services[other])
        if condition == "service_completed_successfully":
            assert services[other]["command"][0] in {"migrate", "topics"}


def is_ours(service: dict[str, Any]) -> bool:
    return "todo-api" in service["image"]


OURS = sorted(name for name, service in merged().items() if is_ours(service))


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_more_rights_than_they_need(name):
    service = merged()[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "container_name" not in service


@pytest.mark.parametrize("name", OURS)
def test_our_containers_are_given_settings_that_exist_and_parse(name):
    service = merged()[name]
    environment = {key: filled_in(str(value)) for key, value in service["environment"].items()}
    assert set(environment) <= NAMES
    role = service["command"][0]
    load_settings(
        role if role in ("api", "worker", "relay") else "tool",
        environment | {"JWT_SECRET": "0123456789abcdef" * 3},
    )


def filled_in(text: str) -> str:
    """A value as compose sees it with nothing in the environment."""
    return re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)?\}", lambda match: match[1] or "", text)


@each_file
def test_ports_of_the_stores_are_for_this_machine_only(file):
    for name, service in yaml.safe_load(file.read_text())["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:") or name == "nginx"


def test_the_pools_of_all_replicas_fit_into_postgresql():
    services = merged()
    (allowed,) = re.findall(r"max_connections=(\d+)", str(services["postgres"]["command"]))
    needed = services["api"]["deploy"]["replicas"] * int(services["api"]["environment"]["DB_POOL_SIZE"])
    needed += services["worker"]["deploy"]["replicas"] * 2
    assert needed + 20 <= int(allowed), "and some for people, and for a migration"


def test_every_variable_of_nginx_is_set_and_every_file_mounted_is_there():
    nginx = merged()["nginx"]
    used = set()
    for template in (FOLDER / "nginx" / "templates").glob("*.template"):
        used |= set(re.findall(r"\$\{(\w+)\}", template.read_text()))
    assert used == set(nginx["environment"]) - {"NGINX_ENVSUBST_OUTPUT_DIR"}
    for service in merged().values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (FOLDER / volume.split(":")[0]).exists(), volume


def test_prometheus_looks_for_replicas_where_they_answer():
    jobs = yaml.safe_load((FOLDER / "observability" / "prometheus" / "prometheus.yml").read_text())[
        "scrape_configs"
    ]
    found = {job["dns_sd_configs"][0]["names"][0]: job["dns_sd_configs"][0]["port"] for job in jobs}
    services = merged()
    assert found == {
        "api": services["api"]["environment"]["ADMIN_PORT"],
        "relay": services["relay"]["environment"]["RELAY_METRICS_PORT"],
        "worker": services["worker"]["environment"]["WORKER_METRICS_PORT"],
        # The exporter's own; it asks nginx on the port that is not for clients.
        "nginx-exporter": 9113,
    }
    inner = f"http://nginx:{services['nginx']['environment']['NGINX_INNER_PORT']}/nginx_status"
    assert services["nginx-exporter"]["command"] == [f"--nginx.scrape-uri={inner}"]
    assert str(found["api"]) in services["api"]["expose"]


def test_relay_and_api_share_a_folder_that_is_the_users_of_the_image_alone():
    services = merged()
    sockets = {services[name]["environment"]["PUBLISHER_SOCKET"] for name in ("api", "relay")}
    (socket,) = map(PurePosixPath, sockets)
    for name in ("api", "relay"):
        assert services[name]["volumes"] == [f"relay:{socket.parent}"]
    (user,) = re.findall(r"^USER (\d+):\1$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    volume = yaml.safe_load((FOLDER / "docker-compose.relay.yml").read_text())["volumes"]["relay"]
    options = volume["driver_opts"]["o"].split(",")
    assert {f"uid={user}", f"gid={user}", "mode=0700"} <= set(options)


def test_the_api_starts_after_the_relay_and_so_stops_before_it():
    assert merged()["api"]["depends_on"]["relay"] == {"condition": "service_healthy"}


def test_kafka_tells_containers_and_this_machine_where_each_can_reach_it():
    kafka = merged()["kafka"]
    assert "CONTAINERS://kafka:19092" in kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert "HOST://localhost:9092" in kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert kafka["ports"] == ["127.0.0.1:9092:9092"]
    assert merged()["api"]["environment"]["KAFKA_BROKERS"] == "kafka:19092"


def test_the_example_of_the_settings_needs_only_a_secret():
    values = {name: value or "" for name, value in dotenv_values(FOLDER / ".env.example").items()}
    assert values["JWT_SECRET"] == ""
    assert set(values) <= NAMES
    load_settings("api", values | {"JWT_SECRET": "0123456789abcdef" * 3})


@pytest.mark.parametrize("name", ["api", "worker"])
def test_a_container_gets_the_25_s_that_a_stop_may_take(name):
    (seconds,) = re.findall(r"^(\d+)s$", merged()[name]["stop_grace_period"])
    assert int(seconds) > 25


@pytest.mark.parametrize("target", [".env", "docker/.env"])
def test_the_lines_of_the_readme_put_a_secret_of_its_own_into_the_settings(target, tmp_path):
    lines = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.endswith(f"> {target}")]
    (tmp_path / "docker").mkdir()
    shutil.copy(FOLDER / ".env.example", tmp_path / "docker")
    subprocess.run(["/bin/sh", "-ec", "\n".join(lines)], cwd=tmp_path, check=True)
    values = dotenv_values(tmp_path / target)
    assert values.keys() == dotenv_values(FOLDER / ".env.example").keys()
    load_settings("api", {name: value or "" for name, value in values.items()})


@pytest.mark.parametrize("name", sorted(set(OURS) - {"migrate", "topics"}))
def test_whoever_looks_is_told_whether_a_container_lives(name):
    service = merged()[name]
    check = service.get("healthcheck", {"test": ["CMD", "todo", "health"]})["test"]
    assert check[:3] == ["CMD", "todo", "health"]
    if name == "worker":
        assert check[3:] == [
            "--url",
            f"http://127.0.0.1:{service['environment']['WORKER_METRICS_PORT']}/metrics",
        ]
