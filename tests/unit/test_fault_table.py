"""The table of docs/reliability.md is what the fault suite prints, and the suite leaves it in a file."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.fleet import Log
from tests.faults.report import Run, write
from tests.faults.rows import ROWS
from tests.faults.table import HEAD, Summary, markdown, summaries
from tests.faults.trial import Pace, Result, broken_bounds

DOCUMENT = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
RUN = Run("4,5", 2, 10.0, datetime(2026, 11, 28, 12, 30, tzinfo=UTC))


def result(number: str = "4", log: Log = "streams", **figures: Any) -> Result:
    [row] = [row for row in ROWS if row.number == number]
    usual: dict[str, Any] = {
        "writes": 1000, "acked": 400, "unknown": 1600, "reads": 100, "reads_answered": 100, "answer_s": 0.5,
        "recover_s": 1.25, "agreed_s": 0.1, "visible": [0.1, 0.2],
    }  # fmt: skip
    return Result(row, log, **usual | figures)


def documented():
    """Yield the cells of each line of the table in the documentation."""
    begin = DOCUMENT.index(f"| {HEAD[0]} | {HEAD[1]} |")
    for line in DOCUMENT[begin:].split("\n\n")[0].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def shape(cell):
    """Return what a figure looks like whatever its digits; words stay words."""
    return re.sub(r"\d{1,3}(,\d{3})*", "9", cell)


def test_the_documentation_has_the_head_that_is_printed():
    head, rule = markdown([])
    assert f"{head}\n{rule}\n" in DOCUMENT


def test_the_documentation_has_every_row_on_every_log_once():
    lines = [(number, name, log) for number, name, log, *_ in documented()]
    assert sorted(lines) == sorted((row.number, row.name, log) for row in ROWS for log in row.logs)


def test_the_figures_of_the_documentation_look_like_those_that_are_printed():
    few = result(visible=[0.1])
    many = result(
        writes=12_345,
        unknown=1600,
        reads=1000,
        answer_s=10.4,
        recover_s=20.0,
        visible=[12.0, 13.0],
        acked=12_345,
    )
    [printed, others] = (summary.cells() for each in (few, many) for summary in summaries([each]))
    for cells in documented():
        for name, cell, *examples in zip(HEAD[3:], cells[3:], printed[3:], others[3:], strict=True):
            assert shape(cell) in {shape(example) for example in examples}, (cells[:3], name, cell)


def test_rounds_of_a_row_are_summed_and_the_worst_time_counts():
    [summary] = summaries([result(answer_s=0.5), result(answer_s=0.75, recover_s=2.0, visible=[0.3, 0.4])])
    assert (summary.rounds, summary.writes, summary.acked, summary.reads) == (2, 2000, 800, 200)
    assert (summary.answer_s, summary.recover_s, summary.visible_s) == (0.75, 2.0, 0.4)
    assert summary.visible_p50_s == 0.3


def test_a_round_that_never_recovered_makes_its_row_say_so():
    [summary] = summaries([result(), result(recover_s=None)])
    assert summary.cells()[HEAD.index("Recovered")] == "never"


def test_each_log_has_its_line():
    rows = summaries([result(log="streams"), result(log="librdkafka"), result(log="streams")])
    assert [(row.log, row.rounds) for row in rows] == [("streams", 2), ("librdkafka", 1)]


def test_everything_that_was_found_is_counted_in_z():
    found = {"lost": ["a", "b"], "stale": ["c"]}
    [summary] = summaries([result(faults=found), result()])
    assert summary.z == 3
    assert summary.cells()[-1] == "3"


def test_a_run_leaves_its_figures_and_says_how_many_there_were(tmp_path):
    results = [result(), result(number="5", broken=["answer 3 s > 2 s"], notes=["killed"])]
    folder = write(tmp_path, RUN, results)
    told = json.loads((folder / "faults.json").read_text())
    assert (told["command"], told["rounds"]) == ("make faults ROW=4,5 ROUNDS=2 SECONDS=10", 2)
    assert (told["writes"], told["reads"], told["z"]) == (2000, 200, 0)
    assert Summary(**told["rows"][0]).cells() == summaries(results)[0].cells()
    text = (folder / "faults.md").read_text()
    assert "Z was 0 in 2 rounds, with 2,000 writes and 200 reads. 1 of 2 lines missed another bound." in text
    assert "\n".join(markdown(summaries(results))) in text
    assert "- 5, streams: killed; **answer 3 s > 2 s**" in text


def test_a_row_that_may_have_no_unknown_answer_says_what_each_was():
    lost = result(number="3", acked=999, unknown_answers=["update of 12:30:00.5: 503 after 0.50 s, away"])
    assert broken_bounds(lost, Pace(6, 50)) == ["writes 99.90% < 100.00%", *lost.unknown_answers]
    assert summaries([lost])[0].unknown_answers == tuple(lost.unknown_answers)
    assert broken_bounds(result(number="3", acked=1000), Pace(6, 50)) == []


def test_a_run_that_goes_on_replaces_what_it_left(tmp_path):
    first = write(tmp_path, RUN, [result()])
    assert write(tmp_path, RUN, [result(), result()]) == first
    assert json.loads((first / "faults.json").read_text())["rounds"] == 2
