import pytest

from tests.support.api import Api, assert_problem
from todo_api.core.ids import keyed_uuid

ITEM = "/todos/018f0000-0000-7000-8000-00000000000a"
WRITES = [("POST", "/todos", '{"title":"t"}'), ("PATCH", ITEM, '{"title":"t"}'), ("DELETE", ITEM, "")]


@pytest.fixture
def api():
    return Api()


def command_id(api, value):
    api.send("DELETE", ITEM, idempotency_key=value)
    return api.publisher.commands[0].command_id


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("abc+/=_-.:~", "abc+/=_-.:~"),
        ('"with space, comma; and more"', "with space, comma; and more"),
        (r'"a \"quoted\" \\ word"', r'a "quoted" \ word'),
        ("  k  ", "k"),
        ("7", "7"),
        ("k" * 255, "k" * 255),
        (f'"{"k" * 255}"', "k" * 255),
    ],
)
def test_a_key_is_taken_with_and_without_the_quotes_of_a_structured_field(api, value, key):
    assert command_id(api, value) == keyed_uuid("alice", key)


@pytest.mark.parametrize(
    "value",
    [
        "", " ", '""', '"  "', '"', '"open', 'open"', 'a"b', "a b", "a,b", '"a", "b"', '"a";v=1', "a;v=1", "a\\b",
        r'"a\b"', r'"a\"', "schl\u00fcssel", '"schl\u00fcssel"', "a\x7f", "a\tb", '"a\tb"', "k" * 256,
        f'"{"k" * 256}"', ":YWJj:\x00",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_what_is_no_key_is_refused_by_the_name_of_the_header(api, method, path, body, value):
    answer = api.send(method, path, body, idempotency_key=value)
    members = assert_problem(answer, 400, "invalid-header")
    assert members["header"] == "Idempotency-Key"
    assert "Idempotency-Key" in members["detail"]
    assert api.publisher.records == []


@pytest.mark.parametrize(
    ("value", "versions"),
    [
        ('"3-17"', ("3-17",)),
        ('"3-17","3-18"', ("3-17", "3-18")),
        (' "3-17" ,\t"3-18" ', ("3-17", "3-18")),
        (', "3-17",, ,"3-18",', ("3-17", "3-18")),
        ('"3-17", "3-17"', ("3-17",)),
        ("*", ("*",)),
        (" * ", ("*",)),
        # Well-formed, and nothing a todo could match: weak tags (strong comparison) and tags that are not ours.
        ('W/"3-17"', ()),
        ('W/"3-17", "3-18"', ("3-18",)),
        ('"anything"', ()),
        ('""', ()),
        ('"*"', ()),
        ('"a,b", "3-17"', ("3-17",)),
        ('"\u00e9"', ()),
        ('"3-99999999999999999999"', ()),
    ],
)
def test_if_match_is_read_as_rfc_9110_has_it(api, value, versions):
    assert api.send("DELETE", ITEM, if_match=value).status_code == 202
    assert api.publisher.commands[0].if_match == versions


@pytest.mark.parametrize(
    "value",
    [
        "", " ", ",", "3-17", '"3-17', '3-17"', "'3-17'", 'w/"3-17"', 'W/3-17', 'W/ "3-17"', '"3-17" "3-18"',
        '*, "3-17"', '"3-17", *', "**", '"a"b"', '"a b"', '"a\x7f"', '"3-17";', '"3-17"' + " ,\t" * 1000 + "x",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("method", "path", "body"), WRITES[1:])
def test_what_is_no_list_of_entity_tags_is_refused_by_the_name_of_the_header(api, method, path, body, value):
    members = assert_problem(api.send(method, path, body, if_match=value), 400, "invalid-header")
    assert members["header"] == "If-Match"
    assert api.publisher.records == []


def test_a_new_todo_has_no_version_to_insist_on(api):
    answer = api.send("POST", "/todos", '{"title":"t"}', if_match="*")
    assert assert_problem(answer, 400, "invalid-header")["header"] == "If-Match"
    assert api.publisher.records == []


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_headers_are_not_looked_at_without_a_token(api, method, path, body):
    answer = api.request(method, path, body=body, headers={"Idempotency-Key": "", "If-Match": ""})
    assert_problem(answer, 401, "unauthenticated")
