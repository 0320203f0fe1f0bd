import json
import sys
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from todo_api.strict_json import MalformedJson, parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)  # fmt: skip

NOT_JSON = {
    "empty": b"",
    "white space": b" \n\t ",
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":-Infinity}',
    "a number out of range": b'{"a":1e400}',
    "thousands of digits": b'{"a":' + b"9" * 5000 + b"}",
    "a leading zero": b'{"a":01}',
    "a lone minus": b'{"a":-}',
    "a fraction without digits": b'{"a":1.}',
    "a plus sign": b'{"a":+1}',
    "hexadecimal": b'{"a":0x1}',
    "a lone surrogate escape": b'{"a":"\\ud800"}',
    "a reversed surrogate pair": b'{"a":"\\udc00\\ud800"}',
    "a raw surrogate": b'{"a":"\xed\xa0\x80"}',
    "a raw control character": b'{"a":"\x01"}',
    "a raw line end": b'{"a":"\n"}',
    "a raw NUL": b'{"a":"\x00"}',
    "an unknown escape": b'{"a":"\\x"}',
    "a cut escape": b'{"a":"\\u12"}',
    "not UTF-8": b'{"a":"\xff"}',
    "overlong UTF-8": b'{"a":"\xc0\xaf"}',
    "not UTF-8 in a name": b'{"\xff":1}',
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-32": '{"a":1}'.encode("utf-32-be"),
    "Latin-1": '{"a":"é"}'.encode("latin-1"),
    "a trailing comma": b'{"a":1,}',
    "a missing comma": b'{"a":1 "b":2}',
    "single quotes": b"{'a':1}",
    "a bare name": b"{a:1}",
    "a comment": b'{"a":1/**/}',
    "a second value": b'{"a":1}{"a":1}',
    "rubbish after": b'{"a":1}x',
    "NUL after": b'{"a":1}\0',
    "python words": b'{"a":True}',
    "an open object": b'{"a":1',
    "an open text": b'{"a":"b',
    "a name without value": b'{"a"}',
    "a number as name": b"{1:2}",
    "a name twice": b'{"a":1,"a":2}',
    "a name twice, with texts": b'{"a":"b","c":true,"a":"b"}',
    "a name twice, its text escaped": b'{"a":"b","a":"\\"c"}',
    "a name twice, one escaped": b'{"a":1,"\\u0061":2}',
    "a name twice, deeper": b'{"b":[{"a":1,"a":1}]}',
    "100,000 brackets": b"[" * 100_000,
    "100,000 nested lists": b"[" * 100_000 + b"]" * 100_000,
    "10,000 nested objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_refused(body):
    with pytest.raises(MalformedJson) as refused:
        parse(body)
    assert str(refused.value)


@given(value=VALUES)
def test_what_is_json_comes_back_exactly(value):
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False, indent=1).encode()) == value


@given(value=VALUES, data=st.data())
def test_json_with_a_piece_missing_or_changed_is_refused_or_still_json(value, data):
    body = bytearray(json.dumps({"title": value}).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position : position + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        if not body:
            break
    try:
        parsed = parse(bytes(body))
    except MalformedJson:
        return
    # The judge: Python's own parser, told to be strict about what it can be.
    assert json.loads(bytes(body).decode(), parse_constant=pytest.fail) == parsed


@given(body=st.binary())
def test_any_bytes_are_json_or_malformed(body):
    with suppress(MalformedJson):
        parse(body)


def test_more_digits_than_python_takes_are_refused():
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        with pytest.raises(MalformedJson):
            parse(b"9" * 700)
    finally:
        sys.set_int_max_str_digits(limit)


def test_the_place_of_a_mistake_is_told():
    with pytest.raises(MalformedJson, match="byte 5"):
        parse(b'{"a":x}')
