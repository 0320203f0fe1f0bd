import io
import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.api import PROBLEM, Api, assert_problem, token
from tests.unit.test_strict_json import NOT_JSON

GOOD = b'{"title":"t"}'
ITEM = "/todos/018f0000-0000-7000-8000-00000000000a"
CAP = 64 * 1024
DRAINED = 1024 * 1024


@pytest.fixture
def api():
    return Api()


class Stream(io.BytesIO):
    """What a server hands over: knows how much was read, and fails when told."""

    failure: Exception | None = None
    at_most = 1 << 30

    def read(self, size=-1):
        if self.failure is not None:
            raise self.failure
        return super().read(min(size, self.at_most) if size >= 0 else size)


def send_stream(api, stream, *, method="POST", path="/todos", length=None, authorization=None, **environ):
    """Send a body as the server sees it: ``length`` is the Content-Length, None a chunked body."""
    headers = {"Authorization": f"Bearer {token()}" if authorization is None else authorization}
    headers["Content-Type"] = "application/json"
    if length is None:
        headers["Transfer-Encoding"] = "chunked"
        environ["wsgi.input_terminated"] = True
    else:
        headers["Content-Length"] = str(length)
    return api.request(method, path, headers=headers, extras={"wsgi.input": stream} | environ)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_a_body_that_is_not_json_is_400(api, method, body):
    path = "/todos" if method == "POST" else ITEM
    answer = api.send(method, path, body)
    assert_problem(answer, 413 if len(body) > CAP else 400, None if len(body) > CAP else "malformed-body")
    assert api.publisher.records == []


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8",
        'application/json; charset="utf-8"', " application/json ", "application/json ; charset = utf-8",
    ],
)  # fmt: skip
def test_json_by_any_of_its_names_is_read(api, content_type):
    assert api.send("POST", "/todos", GOOD, content_type=content_type).status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
        "application/json; charset=latin-1", "application/json; charset=utf-16", "application/jsonp", "application/*",
        "application/merge-patch+json", "application/problem+json", "*/*", "application/json, text/plain", "json",
        "application/json; charset=utf-8; charset=utf-16", "application/msgpack", "é",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("method", "path"), [("POST", "/todos"), ("PUT", ITEM), ("PATCH", ITEM)])
def test_any_other_content_type_is_415(api, method, path, content_type):
    answer = api.send(method, path, GOOD, content_type=content_type)
    assert_problem(answer, 415, "unsupported-media-type")
    assert answer.headers["accept"] == "application/json"
    assert api.publisher.records == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity, gzip", "x", "GZIP", "chunked"])
def test_an_encoded_body_is_415(api, coding):
    answer = api.send("POST", "/todos", GOOD, content_encoding=coding)
    assert_problem(answer, 415, "unsupported-media-type")
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("coding", ["identity", "Identity", " identity "])
def test_an_encoding_that_is_none_is_taken(api, coding):
    assert api.send("POST", "/todos", GOOD, content_encoding=coding).status_code == 202


def test_the_largest_body_is_taken_and_one_byte_more_is_413(api):
    body = GOOD + b" " * (CAP - len(GOOD))
    assert api.send("POST", "/todos", body).status_code == 202
    members = assert_problem(api.send("POST", "/todos", body + b" "), 413, "too-large")
    assert "65536" in members["detail"]


@pytest.mark.parametrize("at_most", [1, 7, 1 << 30])
def test_a_chunked_body_is_read_to_its_end(api, at_most):
    stream = Stream(GOOD)
    stream.at_most = at_most
    assert send_stream(api, stream).status_code == 202
    assert api.publisher.commands[0].title == "t"


def test_a_chunked_body_over_the_cap_is_413(api):
    assert_problem(send_stream(api, Stream(GOOD + b" " * CAP)), 413, "too-large")
    assert api.publisher.records == []


@pytest.mark.parametrize("length", [None, 0])
def test_no_body_at_all_is_400(api, length):
    assert_problem(send_stream(api, Stream(), length=length), 400, "malformed-body")


def test_a_body_that_breaks_off_is_400_even_if_what_came_is_json(api):
    assert_problem(send_stream(api, Stream(GOOD), length=len(GOOD) + 5), 400, "malformed-body")
    assert api.publisher.records == []


def test_what_follows_the_announced_length_is_not_read(api):
    stream = Stream(GOOD + b"GET / HTTP/1.1")
    assert send_stream(api, stream, length=len(GOOD)).status_code == 202
    assert stream.tell() == len(GOOD)


def test_a_body_announced_with_an_absurd_length_is_413(api):
    assert_problem(send_stream(api, Stream(GOOD), length=10**30), 413, "too-large")


@pytest.mark.parametrize("length", [None, 100])
@pytest.mark.parametrize("failure", [ConnectionResetError(), ValueError("bad chunk"), TimeoutError()])
def test_a_client_that_goes_away_or_frames_badly_is_400(api, length, failure):
    stream = Stream()
    stream.failure = failure
    assert_problem(send_stream(api, stream, length=length), 400, "malformed-body")


EARLY = [
    ("401", {"authorization": "Bearer x"}),
    ("404", {"path": "/nothing"}),
    ("404", {"path": "/todos/x", "method": "PUT"}),
    ("404", {"path": "/todos/"}),
    ("405", {"method": "PUT"}),
    ("405", {"path": "/health"}),
    ("413", {}),
    ("202", {"path": ITEM, "method": "DELETE"}),
]


@pytest.mark.parametrize(("status", "call"), EARLY)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_nobody_wanted_is_read_before_the_answer(api, status, call, chunked):
    stream = Stream(b"x" * 900_000)
    answer = send_stream(api, stream, length=None if chunked else 900_000, **call)
    assert answer.status[:3] == status
    assert stream.tell() == 900_000


def test_a_body_without_end_is_not_read_for_ever(api):
    stream = Stream(b"x" * (3 * DRAINED))
    assert_problem(send_stream(api, stream, length=3 * DRAINED, authorization="Bearer x"), 401)
    assert stream.tell() == DRAINED


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["title", "description", "completed", "x"]), inner)
    ),
    max_leaves=8,
)


@st.composite
def bodies(draw):
    """Bytes of every kind: rubbish, JSON of the wrong shape, good bodies with a few bytes changed."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=200))
    value = draw(ANY_JSON | st.fixed_dictionaries({"title": st.text(min_size=1, max_size=30)}))
    body = bytearray(json.dumps(value, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass"))
    for _ in range(draw(st.integers(0, 3))):
        position = draw(st.integers(0, len(body)))
        body[position : position + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


@settings(max_examples=400)
@given(call=st.sampled_from([("POST", "/todos"), ("PUT", ITEM), ("PATCH", ITEM)]), body=bodies())
def test_any_body_is_taken_whole_or_refused_as_a_problem(call, body):
    api = Api()
    method, path = call
    answer = api.send(method, path, body)
    assert answer.status_code in (202, 400, 422)
    assert len(api.publisher.commands) == (answer.status_code == 202)
    if answer.status_code != 202:
        assert answer.headers["content-type"] == PROBLEM
        assert_problem(answer, answer.status_code)


@given(
    path=st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=60),
    query=st.text(max_size=60),
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]),
    prefix=st.sampled_from(["/", "/todos", "/todos/", "/todos?limit=", "/health"]),
)
def test_any_path_query_and_method_is_answered_without_an_error_of_ours(path, query, method, prefix):
    answer = Api().request(
        method, prefix.partition("?")[0] + quote(path), query_string=quote(query, safe="=&%+;,")
    )
    assert answer.status_code < 500


@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["Authorization", "Content-Type", "If-None-Match", "Accept-Encoding", "X-Request-Id", "Content-Encoding",
             "Accept", "Cookie", "Range", "Host", "Expect", "Transfer-Encoding"]
        ),
        st.text(st.characters(max_codepoint=0xFF, exclude_characters="\r\n\0"), max_size=40),
    ),
    call=st.sampled_from([("GET", "/todos"), ("GET", ITEM), ("POST", "/todos"), ("DELETE", ITEM), ("GET", "/ready")]),
)  # fmt: skip
def test_any_header_is_answered_without_an_error_of_ours(headers, call):
    assert Api().request(*call, headers=headers).status_code < 500
