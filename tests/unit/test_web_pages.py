"""The pages for people, as they are answered. How they behave is in tests/browser."""

import gzip
import re
from importlib.resources import files

import pytest

from tests.support.api import Api, assert_problem

WEB = {file.name: file for file in (files("todo_api") / "web").iterdir() if file.is_file()}
TEXTS = {name: file.read_text() for name, file in WEB.items()}
PAGES = {"/": "todos.html", "/docs": "docs.html", "/status": "status.html"}
OTHERS = {"/assets/vendor/swagger-ui/swagger-ui-bundle.js", "/assets/vendor/swagger-ui/swagger-ui.css"}
PATHS = [*PAGES, *(f"/assets/{name}" for name in WEB if not name.endswith(".html"))]

each_path = pytest.mark.parametrize("path", PATHS)


@pytest.fixture(scope="module")
def api():
    return Api()


def contents(path):
    return WEB[PAGES.get(path) or path.removeprefix("/assets/")].read_bytes()


@each_path
def test_a_file_is_answered_plain_and_compressed_with_one_tag_for_both(api, path):
    plain, compressed = api.get(path), api.get(path, accept_encoding="gzip")

    assert plain.status_code == compressed.status_code == 200
    assert plain.content == contents(path)
    assert "content-encoding" not in plain.headers
    if compressed.headers.get("content-encoding") == "gzip":
        assert gzip.decompress(compressed.content) == plain.content
        assert len(compressed.content) < len(plain.content)
    assert plain.headers["etag"] == compressed.headers["etag"]
    assert plain.headers["vary"] == "Accept-Encoding"
    assert plain.headers["cache-control"] == "no-cache"
    assert plain.headers["x-content-type-options"] == "nosniff"


@each_path
def test_a_file_that_the_client_has_is_answered_with_304(api, path):
    answer = api.get(path, if_none_match=api.get(path).headers["etag"])

    assert (answer.status_code, answer.content) == (304, b"")
    assert api.get(path, if_none_match='"another"').status_code == 200


@each_path
def test_head_answers_as_get_does_without_the_body(api, path):
    head, get = api.request("HEAD", path), api.get(path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == str(len(get.content))


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("todos.js", "text/javascript; charset=utf-8"),
        ("base.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_a_file_says_what_it_is(api, name, content_type):
    assert api.get(f"/assets/{name}").headers["content-type"] == content_type


@pytest.mark.parametrize("path", sorted(OTHERS))
def test_files_of_others_are_served_and_what_stands_beside_them_is_not(api, path):
    assert api.get(path).status_code == 200
    assert_problem(api.get(path.rpartition("/")[0] + "/LICENSE"), 404, "not-found")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_may_only_do_what_it_needs(api, page):
    answer = api.get(page)
    policy = dict(
        directive.split(" ", 1) for directive in answer.headers["content-security-policy"].split("; ")
    )

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    # Swagger UI writes styles of its own.
    assert policy["style-src"] == ("'self' 'unsafe-inline'" if page == "/docs" else "'self'")
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "name",
    ["", "nothing.js", "todos.html", "../app.py", "..%2Fapp.py", "%2e%2e/app.py", "base.css/", "/base.css", "BASE.CSS",
     "base.css%00", "vendor", "."],
)  # fmt: skip
def test_a_name_that_is_not_that_of_an_asset_is_404(api, name):
    assert_problem(api.get(f"/assets/{name}"), 404, "not-found")


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_file_refers_only_to_files_that_are_there(name):
    text = TEXTS[name]
    found = {path.removeprefix("/assets/") for path in re.findall(r"[\"'](/assets/[^\"']+)[\"']", text)}
    found |= {path.removeprefix("./") for path in re.findall(r'from "(\./[^"]+)"', text)}
    assert {f"/assets/{path}" for path in found} <= {f"/assets/{name}" for name in WEB} | OTHERS
    outside = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
    assert not outside


@pytest.mark.parametrize("name", sorted(name for name in TEXTS if name.endswith(".html")))
def test_a_page_holds_nothing_inline(name):
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", TEXTS[name])
    assert re.findall(r"<script[^>]*>(.*?)</script>", TEXTS[name], re.DOTALL) == [""] * TEXTS[name].count(
        "<script"
    )


@pytest.mark.parametrize("name", sorted(name for name in TEXTS if name.endswith(".js")))
def test_a_script_never_makes_markup_of_text(name):
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", TEXTS[name]
    )
