"""A problem's type leads to a page that says what it means and what to do."""

import re
from html.parser import HTMLParser

import pytest

from tests.support.api import Api, assert_problem
from todo_api.problems import PROBLEM_TYPES

NAVIGATION = ["/problems", "/docs"]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
def api():
    return Api()


class Page(HTMLParser):
    """The text of a page, and where its links lead."""

    def __init__(self, text):
        super().__init__()
        self.text = ""
        self.links = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_data(self, data):
        self.text += data


def test_the_type_of_a_problem_leads_to_its_meaning_and_what_to_do(api):
    members = assert_problem(api.get("/todos?limit=0"), 400)
    page = api.get(members["type"])
    assert page.status_code == 200
    assert page.headers["content-type"] == "application/json"
    assert page.json["title"] == members["title"]
    assert page.json["status"] == 400
    assert page.json["type"] == members["type"]


@pytest.mark.parametrize("kind", PROBLEM_TYPES.values(), ids=lambda kind: kind.name)
def test_every_type_has_a_page_for_programs_and_one_for_people(api, kind):
    told = api.get(kind.uri).json
    assert told == {"type": kind.uri, **{k: v for k, v in kind._asdict().items() if k != "name"}}
    assert all(len(told[name]) > 10 for name in ("title", "meaning", "fix"))
    page = Page(api.get(kind.uri, accept=BROWSER).text)
    for part in (kind.title, kind.meaning, kind.fix, str(kind.status)):
        assert part in page.text
    assert page.links == NAVIGATION


def test_the_list_names_every_type(api):
    listed = api.get("/problems").json
    links = Page(api.get("/problems", accept=BROWSER).text).links
    assert links == [*(kind["type"] for kind in listed), *NAVIGATION]
    assert {kind["type"] for kind in listed} == {kind.uri for kind in PROBLEM_TYPES.values()}


def test_a_page_for_people_runs_nothing_and_loads_only_what_is_ours(api):
    answer = api.get("/problems", accept=BROWSER)
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self'; ")
    assert "script" not in policy
    assert not re.search(r"<script|<style|\sstyle=|src=", answer.text)
    loaded = re.findall(r'<link [^>]*href="([^"]*)"', answer.text)
    assert loaded
    assert {api.get(path).status_code for path in loaded} == {200}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (BROWSER, "text/html"),
        ("text/html", "text/html"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("image/png", "application/json"),
        ("text/html;q=0.1, application/json", "application/json"),
        ("!", "application/json"),
    ],
)
def test_the_client_chooses_between_json_and_html(api, accept, kind):
    answer = api.get("/problems", accept=accept)
    assert answer.headers["content-type"].split(";")[0] == kind
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("name", ["x", "about:blank", "%00", "..", "Not-Found", "n" * 5000, "<script>"])
def test_a_name_that_is_no_type_is_not_found(api, name):
    assert_problem(api.get(f"/problems/{name}"), 404, "not-found")


def test_a_status_without_a_type_of_ours_is_about_blank(api):
    import falcon

    class Teapot:
        def on_get(self, req, resp):
            raise falcon.HTTPError(418)

    api.app.add_route("/teapot", Teapot())
    assert assert_problem(api.get("/teapot"), 418)["type"] == "about:blank"
