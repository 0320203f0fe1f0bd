"""What ``todo bench reads`` makes of wrk's output, and when it refuses to report. No server is started."""

import pytest

from scripts.bench import wrk
from scripts.bench.reads import CASES, Comparison, Refused, Sample, check_bytes, check_load
from scripts.bench.reads_table import markdown_table, rows
from scripts.bench.wrk import Load
from scripts.stack.server import StackError

OUTPUT = """\
Running 4s test @ http://127.0.0.1:8080/todos?limit=100
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.99ms    4.75ms  80.73ms   93.12%
    Req/Sec    51.30k     6.02k   58.81k    72.50%
  Latency Distribution
     50%  694.00us
     75%    1.13ms
     90%    4.74ms
     99%   24.37ms
  204365 requests in 4.03s, 4.61GB read
{errors}Requests/sec:  50711.20
Transfer/sec:      1.14GB
"""


def output(errors=""):
    return OUTPUT.format(errors=errors)


def sample(requests_per_s, cpu_s=1.0, p99_s=0.001):
    return Sample(Load(int(requests_per_s), requests_per_s, p99_s, 0), cpu_s)


def test_requests_rate_and_p99_are_read_from_what_wrk_prints():
    load = wrk.parse(output())
    assert (load.requests, load.requests_per_s, load.failures) == (204365, 50711.2, 0)
    assert load.p99_s == pytest.approx(0.02437)


@pytest.mark.parametrize(
    ("printed", "seconds"), [("694.00us", 0.000694), ("1.13ms", 0.00113), ("1.20s", 1.2), ("1.50m", 90.0)]
)
def test_every_unit_of_wrk_is_read(printed, seconds):
    assert wrk.parse(output().replace("24.37ms", printed)).p99_s == pytest.approx(seconds)


def test_refused_answers_and_every_kind_of_socket_error_are_failures():
    errors = (
        "  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 50000\n"
    )
    assert wrk.parse(output(errors)).failures == 54321


@pytest.mark.parametrize("missing", ["requests in", "99%", "Requests/sec"])
def test_output_that_lacks_a_figure_is_an_error_and_not_a_zero(missing):
    with pytest.raises(StackError, match="wrk"):
        wrk.parse(output().replace(missing, "..."))


def test_without_wrk_the_error_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="apt-get install wrk"):
        wrk.find_wrk()


def test_one_failure_in_a_thousand_requests_is_accepted():
    check_load(Load(1000, 1000.0, 0.001, failures=1), "a page")


def test_more_failures_than_that_are_refused_with_the_name_of_the_run():
    with pytest.raises(Refused, match=r"a page: 2 failures in 1000 requests"):
        check_load(Load(1000, 1000.0, 0.001, failures=2), "a page")


def test_a_run_without_any_answer_is_refused():
    with pytest.raises(Refused, match="not one request"):
        check_load(Load(0, 0.0, 0.0, failures=0), "a page")


def test_answers_of_equal_length_but_other_bytes_are_refused():
    check_bytes(b"[1]", b"[1]", "a page")
    with pytest.raises(Refused, match="a page"):
        check_bytes(b"[1]", b"[2]", "a page")


def test_the_ratio_is_the_median_of_the_rounds_own_ratios_and_not_the_ratio_of_the_medians():
    nginx, ours = [sample(100), sample(1000), sample(200)], [sample(90), sample(100), sample(160)]
    comparison = Comparison(CASES[0], nginx, ours)
    # The medians are 200 and 100, whose ratio is 0.5.
    assert comparison.ratio(lambda one: one.load.requests_per_s) == pytest.approx(0.8)


def test_requests_per_cpu_second_count_the_servers_time_and_not_the_clock():
    assert sample(1000, cpu_s=0.25).requests_per_cpu_s == pytest.approx(4000)


def test_a_row_shows_both_servers_their_ratios_and_latencies():
    comparison = Comparison(CASES[0], [sample(10_000, 0.5, 0.002)], [sample(5_000, 1.0, 0.0304)])
    assert rows([comparison]) == [
        ["limit=100, plain", "10,000", "5,000", "0.50", "20,000", "5,000", "0.25", "2.0 ms", "30.4 ms"]
    ]


def test_the_markdown_table_has_a_heading_a_rule_and_a_row_a_case_of_equal_width():
    comparisons = [Comparison(case, [sample(1000)], [sample(500)]) for case in CASES]
    lines = markdown_table(comparisons).splitlines()
    assert len(lines) == 2 + len(CASES)
    assert {line.count("|") for line in lines} == {10}
    assert set(lines[1]) == set("| -:")
