"""What ``todo bench compare`` makes of its samples, and when it refuses to report. No server is started."""

from pathlib import Path

import pytest

from scripts.bench.compare import API, BASELINE, CASES, Comparison, Sample, check_bytes
from scripts.bench.compare_table import compare_table
from scripts.bench.load import Load, Refused
from scripts.bench.nginx import Nginx
from scripts.bench.peers import PEERS, FastApi
from scripts.stack.server import StackError


def sample(requests_per_s, cpu_s=1.0, p99_s=0.001):
    load = Load(generator="wrk", requests=requests_per_s, failures=0, seconds=1.0, latency_s={99.0: p99_s})
    return Sample(load, cpu_s)


def per_second(one):
    return one.load.requests_per_s


def test_answers_of_equal_length_but_other_bytes_are_refused():
    check_bytes(b"[1]", b"[1]", "a page")
    with pytest.raises(Refused, match="a page"):
        check_bytes(b"[1]", b"[2]", "a page")


def test_a_ratio_is_that_of_one_round():
    rounds = {BASELINE: [sample(100), sample(1000)], API: [sample(90), sample(100)]}
    assert Comparison(CASES[0], rounds).ratios(API, per_second) == pytest.approx([0.9, 0.1])


def test_requests_per_cpu_second_count_the_servers_time_and_not_the_clock():
    assert sample(1000, cpu_s=0.25).requests_per_cpu_s == pytest.approx(4000)


def test_the_table_shows_the_median_of_the_rounds_own_ratios_with_their_spread():
    nginx, ours = [sample(100), sample(1000), sample(200)], [sample(90), sample(100), sample(160)]
    table = compare_table([Comparison(CASES[0], {BASELINE: nginx, API: ours})])
    # The medians are 200 and 100, whose ratio is 0.5.
    assert table.rows[0][1:4] == [BASELINE, "200", "1"]
    assert table.rows[1][1:4] == [API, "100", "0.80 (0.10-0.90)"]


def test_a_row_shows_requests_by_the_clock_and_by_cpu_and_the_latency():
    comparison = Comparison(CASES[0], {BASELINE: [sample(10_000, 0.5)], API: [sample(5_000, 1.0, 0.0304)]})
    assert compare_table([comparison]).rows[1] == [
        *["limit=100, plain", API, "5,000", "0.50", "5,000", "0.25", "30.4 ms"]
    ]


def test_the_markdown_table_has_a_heading_a_rule_and_a_row_a_server_of_equal_width():
    comparisons = [Comparison(case, {BASELINE: [sample(1000)], API: [sample(500)]}) for case in CASES]
    lines = compare_table(comparisons).markdown().splitlines()
    assert len(lines) == 2 + 2 * len(CASES)
    assert {line.count("|") for line in lines} == {8}
    assert set(lines[1]) == set("| -:")


def test_nginx_returns_a_body_of_any_length_from_pieces_that_fit_its_configuration(tmp_path):
    body = b"[" + b'{"title": "it\'s \\\\ here"},' * 1000 + b"{}]"
    Nginx(Path("nginx"), tmp_path, 1, 1, {"a.json": body}, {"a.json": body}, keeps_open=False).prepare()
    configuration = (tmp_path / "nginx.conf").read_text()
    assert max(map(len, configuration.split("map "))) < 4096
    assert (tmp_path / "files" / "a.json").read_bytes() == body


def test_a_peer_that_cannot_be_installed_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-python"))
    for peer in PEERS:
        with pytest.raises(StackError, match=r"no-python|not installed"):
            peer.install(tmp_path / peer.name)


def test_a_peer_is_not_installed_again_unless_its_packages_change(tmp_path, monkeypatch):
    commands: list[list[str]] = []
    monkeypatch.setattr("scripts.bench.peers._run", commands.append)
    for _ in range(2):
        FastApi().install(tmp_path / "fastapi")
    assert len(commands) == 2, "one for the environment, one for the packages"
    (tmp_path / "fastapi" / "installed").write_bytes(b"others")
    FastApi().install(tmp_path / "fastapi")
    assert len(commands) == 4


def test_an_installation_that_failed_is_tried_again(tmp_path, monkeypatch):
    def fail(_command):
        raise StackError("no network")

    monkeypatch.setattr("scripts.bench.peers._run", fail)
    for _ in range(2):
        with pytest.raises(StackError, match="no network"):
            FastApi().install(tmp_path / "fastapi")
