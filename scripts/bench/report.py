"""What a run of ``todo bench http`` leaves behind: JSON, Markdown and two plots in a folder of its own."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from scripts.bench.baseline import Difference
from scripts.bench.load import INTERVAL_S
from scripts.bench.measure import machine
from scripts.bench.plots import latency_plot, throughput_plot
from scripts.bench.running_api import Measured
from scripts.bench.usage import saturated

_SHOWN: Final = (50.0, 75.0, 90.0, 99.0, 99.9, 100.0)


def result(measured: Measured, at: datetime) -> dict[str, Any]:
    """Return the run as JSON values; also what a baseline is."""
    plan, load, usage = measured.plan, measured.load, measured.usage
    cpu_s = usage.server_cpu_s
    return {
        "date": at.astimezone(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "url": plan.url,
        "headers": dict(plan.headers),
        "connections": plan.connections,
        "rate_per_s": plan.rate,
        "duration_s": load.seconds,
        "generator": load.generator,
        "answer_bytes": measured.answer_bytes,
        "requests": load.requests,
        "failures": load.failures,
        "requests_per_s": round(load.requests_per_s, 1),
        "requests_per_server_cpu_s": round(load.requests / cpu_s, 1) if cpu_s else None,
        "latency_ms": {f"{percent:g}": round(value * 1000, 3) for percent, value in load.latency_s.items()},
        "throughput": {"interval_s": INTERVAL_S, "requests": list(load.timeline)},
        "cpu_cores_used": {
            "machine": round(usage.machine, 2),
            "of": usage.cores,
            "generator": round(usage.generator, 2),
            "server": {str(pid): round(cores, 2) for pid, cores in (usage.server or {}).items()},
        },
        "saturated": saturated(usage),
    }


def markdown(values: dict[str, Any], differences: Sequence[Difference] | None = None) -> str:
    """Return the report for a person. ``differences`` are those to the baseline, None when there is no baseline."""
    loop = f"{values['rate_per_s']:g} requests a second" if values["rate_per_s"] else "closed loop"
    headers = "".join(f", {name}: {value}" for name, value in values["headers"].items())
    per_cpu = values["requests_per_server_cpu_s"]
    lines = [
        f"# GET {values['url']}",
        "",
        f"{values['date']}, {values['machine']}; {values['generator']}, {values['connections']} connections, {loop}, "
        f"{values['duration_s']:.1f} s{headers}.",
        "",
        "| | |",
        "| --- | ---: |",
        f"| requests a second | {values['requests_per_s']:,.0f} |",
        f"| requests per CPU second of the server | {f'{per_cpu:,.0f}' if per_cpu else 'not known'} |",
        f"| bytes of an answer | {values['answer_bytes']:,} |",
        f"| failures | {values['failures']} of {values['requests']:,} |",
        *[
            f"| {'slowest' if percent == 100 else f'p{percent:g}'} | {values['latency_ms'][f'{percent:g}']:,.2f} ms |"
            for percent in _SHOWN
            if f"{percent:g}" in values["latency_ms"]
        ],
        "",
        "Saturated:",
        "",
        *[f"- {sentence}" for sentence in values["saturated"]],
    ]
    if differences is not None:
        lines += ["", "Against the baseline:", "", *[f"- {difference}" for difference in differences]]
    return "\n".join(lines) + "\n"


def write(folder: Path, values: dict[str, Any], report: str) -> Path:
    """Write everything into a new folder below ``folder``, named by the date, and return it."""
    own = folder / datetime.fromisoformat(values["date"]).strftime("http-%Y-%m-%dT%H-%M-%S")
    own.mkdir(parents=True, exist_ok=True)
    (own / "result.json").write_text(json.dumps(values, indent=2) + "\n")
    plots = {"latency.svg": latency_plot(values)}
    if values["throughput"]["requests"]:
        plots["throughput.svg"] = throughput_plot(values)
    for name, plot in plots.items():
        (own / name).write_bytes(plot)
    pictures = "".join(f"\n![{name.removesuffix('.svg')}]({name})\n" for name in sorted(plots))
    (own / "report.md").write_text(report + pictures)
    return own
