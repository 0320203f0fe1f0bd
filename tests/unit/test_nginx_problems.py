"""What nginx answers by itself says the same as the API does of the same status."""

import json
import re
from pathlib import Path

import pytest

from todo_api.problems import PROBLEM_TYPES

TEMPLATE = Path(__file__).parents[2] / "docker" / "nginx" / "templates" / "server.conf.template"
ANSWERS = re.findall(r"return (\d{3}) '(\{.*\})';", TEMPLATE.read_text())


def test_nginx_has_answers_of_its_own():
    assert {"400", "404", "413", "429", "503"} <= {status for status, _ in ANSWERS}


@pytest.mark.parametrize(("status", "body"), ANSWERS)
def test_an_answer_is_a_problem_of_the_table_or_has_no_type(status, body):
    problem = json.loads(body)
    assert str(problem["status"]) == status
    assert problem["request_id"] == "$todo_request_id"
    if problem["type"] != "about:blank":
        assert problem["title"] == PROBLEM_TYPES[problem["type"].removeprefix("/problems/")].title
