import pytest

from tests.support.api import Api, assert_problem

TODO = "/todos/018f0000-0000-7000-8000-00000000000a"


@pytest.fixture
def api():
    return Api()


PATHS = [
    "//", "/todos/", "//todos", "///todos", "/todos//", TODO + "/", "/todos//x", TODO + "/x", "/Todos", "/TODOS",
    "/todo", "/todos.json", "/todos%2F", "/todos%00", "/todos%20", "/%74odos/", "/health/", "/ready/", "/api/todos",
    "/../todos", "/./todos", "/.env", "/wsgi.py", "/metrics/", "/%FF", "/" + "x" * 8000, "/todos;x",
    "/\u00e9",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_a_path_that_is_not_ours_is_404(api, path, method):
    answer = api.request(method, path)
    if method == "HEAD":
        assert answer.status_code == 404
        assert answer.content == b""
        return
    assert_problem(answer, 404, "not-found")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/todos", {"GET", "HEAD", "POST", "OPTIONS"}),
        (TODO, {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
        ("/health", {"GET", "HEAD", "OPTIONS"}),
        ("/ready", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_method_that_does_not_work_is_405_and_names_those_that_do(api, path, allowed):
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed:
        answer = api.request(method, path)
        assert_problem(answer, 405, "method-not-allowed")
        assert set(answer.headers["allow"].split(", ")) == allowed
    options = api.request("OPTIONS", path)
    assert options.status_code == 204
    assert options.content == b""
    assert "content-length" not in options.headers
    assert set(options.headers["allow"].split(", ")) == allowed


def test_a_method_nobody_knows_is_a_problem_too(api):
    with pytest.warns(match="Unknown REQUEST_METHOD"):
        answer = api.request("BREW", "/todos")
    assert_problem(answer, 400, "bad-request")


@pytest.mark.parametrize(
    "accept", ["application/xml", "text/html", "*/*", "", "text/xml;q=1, application/json;q=0"]
)
def test_an_error_is_problem_json_whatever_the_client_accepts(api, accept):
    assert_problem(api.get("/nothing", accept=accept), 404, "not-found")


@pytest.mark.parametrize("sent", ["abc", "A-1._z", "x" * 128])
def test_a_well_formed_request_id_is_sent_back(api, sent):
    assert assert_problem(api.get("/nothing", x_request_id=sent), 404)["request_id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "a,b", "<script>", "a\tb", "é", "a/b", "a:b"])
def test_any_other_request_id_is_replaced(api, sent):
    made = assert_problem(api.get("/nothing", x_request_id=sent), 404)["request_id"]
    assert made != sent
    assert len(made) == 32


def test_each_request_gets_an_id_of_its_own(api):
    assert api.get("/health").headers["x-request-id"] != api.get("/health").headers["x-request-id"]
