"""``todo bench outage`` on the product as processes, small."""

from scripts.bench.outage import bench, outage_table


def test_reads_are_measured_before_and_while_the_log_hangs_and_writes_are_refused_meanwhile():
    with bench(kafka=False, todos=20) as running:
        measured = running.round("frozen", 1)
    assert measured.there.requests > 0
    assert measured.away.requests > 0
    assert measured.writes.count(503) > 0
    # What was accepted was so before the log hung.
    assert measured.writes.answers[-1][0] == 503
    (row,) = outage_table({"frozen": [measured, measured]}).rows
    assert row[0] == "frozen"
    assert row[5] == f"{2 * measured.writes.count(503)} of {2 * len(measured.writes.answers)}"
