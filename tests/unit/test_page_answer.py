import gzip

import pytest

from tests.support.api import page
from todo_api.page_answer import PageAnswers, accepts_gzip, matches
from todo_api.pages import PageKey


def headers_of(answer):
    names = [name for name, _ in answer.headers]
    assert len(names) == len(set(names))
    return dict(answer.headers)


def test_a_page_is_answered_whole_with_its_headers():
    answer = PageAnswers(page()).choose(None, None)
    assert answer.status == "200 OK"
    assert answer.body == page().body
    assert headers_of(answer) == {
        "ETag": 'W/"e.7.abc"',
        "Cache-Control": "public, max-age=0, s-maxage=1, stale-while-revalidate=5",
        "Vary": "Accept-Encoding, If-Applied",
        "Content-Type": "application/json",
        "Content-Length": str(len(page().body)),
    }


def test_the_compressed_variant_is_the_same_page():
    answer = PageAnswers(page()).choose(None, "gzip, deflate, br")
    headers = headers_of(answer)
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Content-Length"] == str(len(answer.body))
    assert headers["Vary"] == "Accept-Encoding, If-Applied"
    assert gzip.decompress(answer.body) == page().body


def test_variants_that_share_a_tag_share_a_weak_one():
    answers = PageAnswers(page())
    plain, compressed = (headers_of(answers.choose(None, coding))["ETag"] for coding in (None, "gzip"))
    assert plain == compressed
    assert plain.startswith('W/"')


def test_a_body_that_grows_when_compressed_is_sent_plain():
    answer = PageAnswers(page(body=b"[]")).choose(None, "gzip")
    assert answer.body == b"[]"
    assert "Content-Encoding" not in headers_of(answer)


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_a_known_page_is_304_with_the_headers_that_keep_a_cache_fresh(coding):
    answer = PageAnswers(page(next_after="c")).choose('W/"e.7.abc"', coding)
    assert answer.status == "304 Not Modified"
    assert answer.body == b""
    assert set(headers_of(answer)) == {"ETag", "Cache-Control", "Vary"}


@pytest.mark.parametrize(
    ("key", "link"),
    [
        (PageKey(10), '</todos?limit=10&after=next>; rel="next"'),
        (PageKey(10, "here"), '</todos?limit=10&after=next>; rel="next"'),
        (PageKey(None), '</todos?limit=1000&after=next>; rel="next"'),
    ],
)
def test_a_page_that_is_not_the_last_links_to_the_next(key, link):
    answer = PageAnswers(page(key=key, next_after="next")).choose(None, None)
    assert headers_of(answer)["Link"] == link


def test_a_page_served_while_every_store_is_away_tells_its_age():
    headers = headers_of(PageAnswers(page(age_s=12)).choose(None, None))
    assert headers["Age"] == "12"
    assert headers["Cache-Status"] == "todo-api; hit; ttl=-12"


@pytest.mark.parametrize(
    "if_none_match",
    [
        '"a"', 'W/"a"', "*", ' "a" ', '"x", "a"', '"x","a"', 'W/"x" , W/"a"', '"with,comma", "a"', '"", "a"',
        ',, "a"', '"x" "a"',
    ],
)  # fmt: skip
def test_a_tag_in_the_list_matches(if_none_match):
    assert matches(if_none_match, '"a"')


@pytest.mark.parametrize(
    "if_none_match",
    ["", "a", '"b"', 'W/"b"', '"A"', '"a', 'a"', '"a b"', "'a'", '"*"', '"x,a"', '"aa"', "**"],
)
def test_anything_else_does_not_match(if_none_match):
    assert not matches(if_none_match, '"a"')


@pytest.mark.parametrize(
    "accept_encoding",
    [
        "gzip", "GZIP", "x-gzip", "gzip, deflate, br", "br;q=1.0, gzip;q=0.8", "gzip;q=0.001", "*", "deflate, *;q=0.1",
        "gzip ; q=1.000", "gzip;Q=0.5", "identity;q=0.5, gzip;q=0.5", "identity;q=0, gzip", " gzip ", ",gzip,",
    ],
)  # fmt: skip
def test_gzip_is_accepted(accept_encoding):
    assert accepts_gzip(accept_encoding)


@pytest.mark.parametrize(
    "accept_encoding",
    [
        "", "identity", "br", "gzip;q=0", "gzip;q=0.000", "*;q=0", "gzip;q=0, *", "gzip;q=x", "gzip;q=2", "gzip;q=-1",
        "gzip;q=nan", "gzip;q=inf", "gzip;q=", "gzip;level=9", "gzipped", "not-gzip", "identity, gzip;q=0.5",
        "gzip;q=0.1234", "\x00", "é",
    ],
)  # fmt: skip
def test_gzip_is_not_accepted(accept_encoding):
    assert not accepts_gzip(accept_encoding)
