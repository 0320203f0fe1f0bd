"""Every route also begins with /v1, and who came that way is kept there."""

import falcon.testing
import pytest
from falcon.inspect import inspect_routes

from tests.support.api import OPERATION_IDS, Api, token
from todo_api.core.command_log import Position
from todo_api.version_alias import VersionAlias

NOTICE = [("Deprecation", "@1790000000"), ("Link", '</docs/v1>; rel="deprecation"')]


@pytest.fixture
def api():
    return Api()


@pytest.fixture
def client(api):
    return falcon.testing.TestClient(VersionAlias(api.app, "/v1"))


def shape(answer):
    """What must be the same under both paths."""
    own = {"x-request-id", "link", "location", "operation-location"}
    headers = {name: value for name, value in answer.headers.items() if name not in own}
    return answer.status_code, headers


def test_every_route_answers_under_v1_as_it_does_without(api, client):
    headers = {"Authorization": f"Bearer {token()}"}
    operation = OPERATION_IDS.encode(Position("memory:todo-commands", 0, 0), "alice")
    fill = {"{operation_id}": operation}
    routes = inspect_routes(api.app)
    assert routes
    for route in routes:
        path = route.path
        if path in ("/metrics", "/status.json"):
            continue  # what they say changes with each request
        for name, value in fill.items():
            path = path.replace(name, value)
        for method in ("GET", "HEAD", "OPTIONS", "POST"):
            plain = client.simulate_request(method, path, headers=headers)
            assert shape(client.simulate_request(method, "/v1" + path, headers=headers)) == shape(plain), path


def test_links_stay_under_v1(api, client):
    api.pages.next_after = "c" * 48
    assert client.simulate_get("/v1/todos?limit=10").headers["link"] == (
        f'</v1/todos?limit=10&after={"c" * 48}>; rel="next"'
    )
    created = client.simulate_post(
        "/v1/todos",
        body='{"title": "milk"}',
        headers={"Authorization": f"Bearer {token()}", "Content-Type": "application/json"},
    )
    assert created.headers["location"] == f"/v1/todos/{created.json['id']}"
    assert created.headers["operation-location"] == f"/v1/operations/{created.json['operation']}"


def test_links_without_the_version_stay_without(api, client):
    api.pages.next_after = "c" * 48
    assert client.simulate_get("/todos?limit=10").headers["link"].startswith("</todos?")


@pytest.mark.parametrize("path", ["/v1", "/v1//todos", "/v1/v1/todos", "/v1todos", "/V1/todos", "/v2/todos"])
def test_anything_else_that_looks_like_it_is_404(client, path):
    assert client.simulate_get(path).status_code == 404


def test_a_notice_of_deprecation_is_sent_under_the_prefix_and_nowhere_else(api):
    client = falcon.testing.TestClient(VersionAlias(api.app, "/v1", NOTICE))
    for path in ("/v1/todos", "/v1/nothing"):
        headers = client.simulate_get(path).headers
        assert headers["deprecation"] == "@1790000000"
        assert headers["link"] == '</docs/v1>; rel="deprecation"'
    assert "deprecation" not in client.simulate_get("/todos").headers
