"""``todo bench http``: what it reads from the generators, when it refuses, whom it blames, what it writes."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from scripts.bench import hey, wrk
from scripts.bench.baseline import compare, load_baseline
from scripts.bench.latencies import Latencies
from scripts.bench.load import PERCENTILES, Load, Plan, Refused, check_load
from scripts.bench.plots import nines, rates, steps
from scripts.bench.report import markdown, result, write
from scripts.bench.running_api import Measured, check_cache, check_start, choose_generator
from scripts.bench.usage import Usage, saturated
from scripts.bench.wrk import Wrk
from scripts.stack.server import StackError

PLAN = Plan(url="http://127.0.0.1:8080/todos?limit=100", duration_s=5, connections=64)
LATENCY_S = {percent: percent / 1000 for percent in PERCENTILES}
LOAD = Load(
    generator="wrk 4", requests=10_000, failures=0, seconds=5.0, latency_s=LATENCY_S, timeline=[200] * 50
)
IDLE = Usage(
    seconds=5.0, cores=8, machine=2.0, generator=0.2, generator_cores=4, server={1: 0.0, 2: 0.5, 3: 0.4},
    network_share=0.01,
)  # fmt: skip

WRK = (
    "Running 1s test @ http://127.0.0.1:8080/todos\n  204365 requests in 4.03s, 4.61GB read\n"
    "requests\t204365\nduration_us\t4030000\n{failures}"
    + "".join(f"latency_us.{percent:g}\t{int(percent * 1000)}\n" for percent in PERCENTILES)
    + "sent.17955241726\t3\nsent.17955241727\t10\nsent.17955241727\t5\nsent.17955241729\t20\n"
)
HEY = """
Summary:
  Total:	2.0164 secs
  Slowest:	0.0483 secs

Response time histogram:
  0.044 [19]	|■■■■■

Latency distribution:
  50% in 0.0440 secs
  90% in 0.0479 secs
  99% in 0.0483 secs

Status code distribution:
  [200]	184 responses
  [503]	16 responses

Error distribution:
  [3]	Get "http://127.0.0.1:18998/": dial tcp 127.0.0.1:18998: connect: connection refused
"""


def measured(**changes):
    return Measured(plan=PLAN, load=replace(LOAD, **changes), usage=IDLE, answer_bytes=20_879)


def values(**changes):
    return result(measured(**changes), datetime(2026, 11, 24, 12, tzinfo=UTC))


class TestGenerators:
    def test_requests_rate_and_latencies_are_read_from_what_wrk_prints(self):
        load = wrk.parse(WRK.format(failures=""))
        assert (load.requests, load.seconds, load.failures) == (204365, 4.03, 0)
        assert load.p99_s == pytest.approx(0.099)
        assert load.latency_s[100.0] == pytest.approx(0.1)

    def test_the_timeline_of_wrk_adds_its_threads_and_leaves_the_broken_first_tenth_out(self):
        assert wrk.parse(WRK.format(failures="")).timeline[:3] == [15, 0, 20]

    def test_refused_answers_and_every_kind_of_socket_error_are_failures_of_wrk(self):
        failures = "failures.connect\t1\nfailures.read\t20\nfailures.status\t300\nfailures.timeout\t4000\n"
        assert wrk.parse(WRK.format(failures=failures)).failures == 4321

    @pytest.mark.parametrize("missing", ["requests\t", "latency_us.99\t", "duration_us\t"])
    def test_output_that_lacks_a_figure_is_an_error_and_not_a_zero(self, missing):
        with pytest.raises(StackError, match="wrk"):
            wrk.parse(WRK.format(failures="").replace(missing, "..."))

    def test_without_wrk_the_error_names_the_package(self, monkeypatch, tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(StackError, match="apt-get install wrk"):
            Wrk()

    def test_answers_errors_and_latencies_are_read_from_what_hey_prints(self):
        load = hey.parse(HEY)
        assert (load.requests, load.failures, load.seconds) == (200, 19, 2.0164)
        assert load.latency_s == {50.0: 0.044, 90.0: 0.0479, 99.0: 0.0483, 100.0: 0.0483}

    def test_output_of_hey_that_lacks_latencies_is_an_error(self):
        with pytest.raises(StackError, match="hey"):
            hey.parse(HEY.replace("99% in", "..."))

    def test_a_rate_is_only_kept_by_a_client_that_does_not_wait_for_answers(self):
        with pytest.raises(StackError, match="wrk"):
            choose_generator("wrk", replace(PLAN, rate=10.0))
        assert type(choose_generator("auto", replace(PLAN, rate=10.0))).__name__ == "OwnClient"


class TestLatencies:
    def test_percentiles_are_exact_to_one_percent_and_the_slowest_is_exact(self):
        latencies = Latencies()
        for number in range(1, 1001):
            latencies.add(number / 1000)
        assert latencies.percentile(50) == pytest.approx(0.5, rel=0.011)
        assert latencies.percentile(99) == pytest.approx(0.99, rel=0.011)
        assert latencies.percentile(100) == 1.0

    def test_two_processes_are_merged_as_if_one_had_seen_all(self):
        first, second, both = Latencies(), Latencies(), Latencies()
        for number in range(1, 101):
            (first if number % 3 else second).add(number / 1000)
            both.add(number / 1000)
        first.merge(second)
        assert [first.percentile(at) for at in (1, 50, 100)] == [both.percentile(at) for at in (1, 50, 100)]

    def test_without_requests_there_is_no_latency(self):
        assert Latencies().percentile(99) == 0.0


class TestRefusal:
    def test_one_failure_in_a_thousand_requests_is_accepted(self):
        check_load(replace(LOAD, requests=1000, failures=1), "a page")

    def test_more_failures_than_that_are_refused_with_the_name_of_the_run(self):
        with pytest.raises(Refused, match=r"a page: 2 failures in 1000 requests"):
            check_load(replace(LOAD, requests=1000, failures=2), "a page")

    def test_a_run_without_any_answer_is_refused(self):
        with pytest.raises(Refused, match="not one request"):
            check_load(replace(LOAD, requests=0), "a page")

    @pytest.mark.parametrize(
        "header",
        [
            ("Cache-Status", "nginx; fwd=uri-miss; stored"),
            ("cache-status", "todo-api; hit; ttl=-3"),
            ("X-Cache", "MISS from proxy"),
            ("X-Cache-Status", "EXPIRED"),
        ],
    )
    def test_an_answer_that_a_cache_did_not_have_ready_is_refused(self, header):
        with pytest.raises(Refused, match="cache"):
            check_cache([("Content-Type", "application/json"), header], "a page")

    @pytest.mark.parametrize(
        "header", [("Cache-Status", "nginx; hit; ttl=3"), ("X-Cache", "HIT"), ("Cache-Control", "fwd=miss")]
    )
    def test_an_answer_from_a_warm_cache_is_accepted(self, header):
        check_cache([header], "a page")

    def test_a_first_second_of_less_than_half_the_usual_one_is_refused(self):
        check_start([60] * 10 + [100] * 30, "a page")
        with pytest.raises(Refused, match="cold"):
            check_start([40] * 10 + [100] * 30, "a page")

    def test_a_run_too_short_to_tell_is_not_judged_by_its_start(self):
        check_start([1] * 10 + [100] * 20, "a page")


class TestSaturation:
    def test_a_busy_load_generator_is_named_first(self):
        found = saturated(replace(IDLE, generator=3.7, server={1: 0.0, 2: 0.95}))
        assert found[0].startswith("The load generator")
        assert found[1].startswith("The server")

    def test_a_server_whose_processes_all_have_a_core_each_is_named_and_its_idle_master_does_not_matter(self):
        assert saturated(replace(IDLE, server={1: 0.01, 2: 0.96, 3: 0.93})) == [
            "The server: each of its 2 busy processes used a core for itself."
        ]

    def test_one_busy_process_among_others_is_told_apart(self):
        (found,) = saturated(replace(IDLE, server={1: 0.0, 2: 0.96, 3: 0.4}))
        assert found.startswith("1 of the server's 2 busy processes")

    def test_a_machine_full_of_others_is_named_with_what_each_took(self):
        (found,) = saturated(replace(IDLE, machine=7.9))
        assert found.startswith(
            "The machine: 7.90 of its 8 cores were busy, 0.90 with the server, 0.20 with making"
        )

    def test_a_full_network_is_named(self):
        assert saturated(replace(IDLE, network_share=0.95)) == ["The network: 95% of its speed was used."]

    def test_when_nothing_is_busy_it_says_so(self):
        assert saturated(IDLE)[0].startswith("Nothing here")

    def test_a_server_that_cannot_be_seen_is_not_blamed(self):
        assert saturated(replace(IDLE, server=None, network_share=None))[0].startswith("Nothing here")


class TestBaseline:
    def test_the_same_figures_are_not_worse(self):
        assert not any(each.is_worse for each in compare(values(), values()))

    def test_ten_percent_fewer_requests_a_second_are_worse(self):
        assert not compare(values(requests=9_001), values())[0].is_worse
        assert compare(values(requests=8_999), values())[0].is_worse

    def test_a_p99_is_worse_when_it_is_a_quarter_and_a_millisecond_higher(self):
        def p99(now_s, then_s):
            now, then = (values(latency_s=LATENCY_S | {99.0: at}) for at in (now_s, then_s))
            return compare(now, then)[2].is_worse

        assert p99(0.0130, 0.0100)
        assert not p99(0.0120, 0.0100), "too little of a share"
        assert not p99(0.0019, 0.0010), "too little of a time"

    def test_a_run_of_another_page_or_with_other_connections_is_not_compared(self):
        for name, other in (
            ("connections", 65),
            ("url", "http://127.0.0.1:8080/todos"),
            ("machine", "a phone"),
        ):
            with pytest.raises(StackError, match="not comparable"):
                compare(values(), values() | {name: other})

    def test_another_port_is_the_same_page(self):
        compare(values(), values() | {"url": "http://api.example:9000/todos?limit=100"})

    @pytest.mark.parametrize("contents", ["", "[]", '{"requests_per_s": 1}'])
    def test_a_file_that_is_not_a_result_is_refused(self, tmp_path, contents):
        (tmp_path / "baseline.json").write_text(contents)
        with pytest.raises(StackError, match="not a result"):
            load_baseline(tmp_path / "baseline.json")

    def test_a_difference_is_told_in_words(self):
        first = compare(values(requests=5_000), values())[0]
        assert str(first) == "requests a second: 1,000.00, was 2,000.00 (-50.0%), worse"


class TestReport:
    def test_everything_is_written_and_can_be_read_again(self, tmp_path):
        folder = write(tmp_path, values(), markdown(values()))
        assert folder.name == "http-2026-11-24T12-00-00"
        assert load_baseline(folder / "result.json") == json.loads(json.dumps(values()))
        report = (folder / "report.md").read_text()
        assert "| requests a second | 2,000 |" in report
        assert "| p99 | 99.00 ms |" in report
        for name in ("throughput.svg", "latency.svg"):
            assert f"({name})" in report
            root = ElementTree.parse(folder / name).getroot()  # noqa: S314 written above
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert b"href" not in (folder / name).read_bytes(), "it loads nothing"

    def test_a_generator_without_a_timeline_leaves_no_plot_of_it(self, tmp_path):
        folder = write(tmp_path, values(timeline=[]), markdown(values(timeline=[])))
        assert sorted(file.name for file in folder.iterdir()) == ["latency.svg", "report.md", "result.json"]
        assert "throughput" not in (folder / "report.md").read_text()

    def test_requests_per_cpu_second_are_those_of_the_server(self):
        # 10,000 requests; 0.9 cores for 5 seconds.
        assert values()["requests_per_server_cpu_s"] == pytest.approx(10_000 / 4.5, abs=0.1)

    def test_a_long_run_is_drawn_with_few_points_that_keep_the_average(self):
        points = rates([10, 30] * 5_000, 0.1)
        assert len(points) <= 120
        assert {rate for _, rate in points} == {200.0}

    def test_each_nine_of_a_percentile_is_as_wide_as_the_one_before(self):
        assert [nines(percent) for percent in (0, 90, 99, 99.9)] == pytest.approx([0, 1, 2, 3])

    @pytest.mark.parametrize(
        ("end", "marks"),
        [(10, [0, 2, 4, 6, 8, 10]), (0.7, [0, 0.2, 0.4, 0.6]), (31_000, [0, 10_000, 20_000, 30_000])],
    )
    def test_an_axis_is_marked_with_round_numbers(self, end, marks):
        assert steps(end, 5) == pytest.approx(marks)

    def test_a_plot_without_any_latency_is_still_a_picture(self, tmp_path):
        nothing = values(latency_s=dict.fromkeys(LATENCY_S, 0.0))
        ElementTree.parse(write(tmp_path, nothing, "") / "latency.svg")  # noqa: S314 written above
