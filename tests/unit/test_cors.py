"""Which web pages may use the API from a browser, and that nothing changes while none may."""

import falcon.testing
import pytest

from config.settings import SettingsError, load_settings
from tests.support.api import Api
from todo_api.cors import ALLOWED_HEADERS, EXPOSED_HEADERS, Cors

APP = "https://app.example"
OTHER = "https://other.example"
TODO = "/todos/018f0000-0000-7000-8000-00000000000a"


def client(*origins):
    return falcon.testing.TestClient(Cors(Api().app, origins))


def preflight(client, path, origin=APP, method="PATCH"):
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    return client.simulate_options(path, headers=asked)


def cors_headers(answer):
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", ["/todos", "/todos?limit=0", "/nothing", TODO, "/health"])
@pytest.mark.parametrize("origins", [[APP], [OTHER, APP]])
def test_a_page_of_an_allowed_origin_may_read_every_answer_errors_too(origins, path):
    answer = client(*origins).simulate_get(path, headers={"Origin": APP})
    assert answer.headers["access-control-allow-origin"] == APP
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"ETag", "Link", "Location", "Operation-Location", "Retry-After"} <= set(exposed)
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [OTHER, "null", "", "https://app.example.evil", "http://app.example", APP + ":8443", APP.upper(), "*"],
)
def test_any_other_origin_gets_the_answer_without_the_permission(origin):
    answer = client(APP).simulate_get("/todos", headers={"Origin": origin})
    assert answer.status_code == 200
    assert cors_headers(answer) == {}
    assert "Origin" in answer.headers["vary"]
    assert cors_headers(preflight(client(APP), "/todos", origin)) == {}


def test_an_answer_to_nobodys_page_says_that_another_may_differ():
    answer = client(APP).simulate_get("/todos")
    assert cors_headers(answer) == {}
    assert answer.headers["vary"].replace(" ", "").split(",") == ["Accept-Encoding", "If-Applied", "Origin"]


def test_with_a_star_every_page_may_and_answers_are_the_same_for_all():
    answer = client("*").simulate_get("/todos", headers={"Origin": "null"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "Origin" not in answer.headers["vary"]
    assert cors_headers(client("*").simulate_get("/todos")) == {}


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/todos", {"GET", "HEAD", "POST"}), (TODO, {"GET", "HEAD", "PUT", "PATCH", "DELETE"})],
)
def test_a_preflight_names_the_methods_of_the_route_and_the_headers_it_takes(path, methods):
    answer = preflight(client(APP), path)
    assert answer.status_code == 204
    assert methods <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert answer.headers["access-control-allow-headers"].split(", ") == list(ALLOWED_HEADERS)
    assert {"Authorization", "Content-Type", "If-Applied"} <= set(ALLOWED_HEADERS)
    assert answer.headers["access-control-max-age"] == "86400"
    assert answer.headers["access-control-allow-origin"] == APP


def test_a_preflight_for_what_is_not_there_is_refused():
    answer = preflight(client(APP), "/nothing")
    assert answer.status_code == 404
    assert "access-control-allow-methods" not in answer.headers


def test_options_that_are_no_preflight_get_no_answer_to_one():
    answer = client(APP).simulate_options("/todos", headers={"Origin": APP})
    assert answer.headers["allow"]
    assert "access-control-allow-methods" not in answer.headers


def test_every_header_that_answers_carry_may_be_read():
    api = Api()
    answer = api.send("POST", "/todos", '{"title": "milk"}')
    own = {"content-type", "content-length", "cache-control"}
    assert {name for name in answer.headers if name not in own} <= {name.lower() for name in EXPOSED_HEADERS}


SECRET = {"DATABASE_URL": "postgres://h/d", "JWT_SECRET": "0123456789abcdef" * 2}


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("", None),
        ("*", ("*",)),
        (APP, (APP,)),
        (f"{APP}, http://localhost:3000,http://[::1]:80", (APP, "http://localhost:3000", "http://[::1]:80")),
    ],
)
def test_the_setting_takes_origins_or_a_star(value, origins):
    assert load_settings("api", SECRET | {"CORS_ALLOW_ORIGINS": value}).cors_allow_origins == origins


@pytest.mark.parametrize(
    "value",
    ["null", APP + "/", APP + "/x", "app.example", "*.example", "https://*.example", f"*,{APP}", "https://App.example",
     "ftp://app.example", "https://user@app.example", "https://", "https://app.example:"],
)  # fmt: skip
def test_the_setting_refuses_what_no_browser_sends(value):
    with pytest.raises(SettingsError, match="CORS_ALLOW_ORIGINS"):
        load_settings("api", SECRET | {"CORS_ALLOW_ORIGINS": value})
