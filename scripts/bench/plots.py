"""The two plots of a run, as SVG that needs nothing from elsewhere: no script, no font, no style sheet.

Our own lines because matplotlib is heavy for two curves, and pygal 3.1 puts a finder of the old kind into the import
system, which then warns at every import that fails.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.etree import ElementTree

Point = tuple[float, float]

# Beyond this many points the eye sees only noise.
_POINTS_MAX: Final = 120
_WIDTH, _HEIGHT = 900, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 20, 50, 60
_STEPS: Final = (1.0, 2.0, 5.0, 10.0)
# The tail is what is looked at: each nine is as wide as the one before.
_PERCENTILES: Final = {0.0: "0", 50.0: "50", 90.0: "90", 99.0: "99", 99.9: "99.9", 99.99: "99.99"}


def throughput_plot(values: Mapping[str, Any]) -> bytes:
    """Return requests a second over the time of the run."""
    interval_s, counts = values["throughput"]["interval_s"], values["throughput"]["requests"]
    end_s = len(counts) * interval_s
    marks = {mark: f"{mark:g}" for mark in steps(end_s, 10)}
    return _plot("Throughput", "seconds", "requests a second", rates(counts, interval_s), end_s, marks)


def latency_plot(values: Mapping[str, Any]) -> bytes:
    """Return latency by percentile. The slowest has no place on the axis; it ends the curve at the right."""
    latency_ms = {float(percent): value for percent, value in values["latency_ms"].items()}
    end = nines(99.99) + 0.3
    points = [
        (nines(percent) if percent < 100 else end, value) for percent, value in sorted(latency_ms.items())
    ]
    marks = {nines(percent): text for percent, text in _PERCENTILES.items()} | {end: "max"}
    return _plot("Latency", "percentile", "ms", points, end, marks)


def rates(counts: Sequence[int], interval_s: float) -> list[Point]:
    """Return (seconds since the start, requests a second), of so many intervals together that a plot can be read."""
    width = -(-len(counts) // _POINTS_MAX) or 1
    return [
        ((at + width / 2) * interval_s, sum(counts[at : at + width]) / (width * interval_s))
        for at in range(0, len(counts) - width + 1, width)
    ]


def nines(percent: float) -> float:
    """Return how many nines a percentile below 100 has: 0 for 0, 1 for 90, 2 for 99."""
    return -math.log10(1 - percent / 100)


def steps(end: float, most: int) -> list[float]:
    """Return at most ``most`` round numbers above 0, the last at or below ``end``, and 0."""
    rough = end / most if end > 0 else 1.0
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(each for each in (factor * magnitude for factor in _STEPS) if each >= rough * 0.999)
    return [number * step for number in range(int(end / step + 1e-9) + 1)]


def _plot(
    title: str,
    x_title: str,
    y_title: str,
    points: Sequence[Point],
    x_end: float,
    x_marks: Mapping[float, str],
) -> bytes:
    y_end = max((y for _, y in points), default=0.0) * 1.05 or 1.0

    def x_at(x: float) -> str:
        return f"{_LEFT + x / x_end * (_WIDTH - _LEFT - _RIGHT):.1f}"

    def y_at(y: float) -> str:
        return f"{_HEIGHT - _BOTTOM - y / y_end * (_HEIGHT - _TOP - _BOTTOM):.1f}"

    svg = ElementTree.Element(
        "svg",
        {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {_WIDTH} {_HEIGHT}"}
        | {"font-family": "sans-serif", "font-size": "13", "role": "img"},
    )
    ElementTree.SubElement(svg, "title").text = f"{title}: {y_title} by {x_title}"
    ElementTree.SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "white"})
    _text(svg, title, _WIDTH / 2, 28, size=17)
    _text(svg, x_title, _WIDTH / 2, _HEIGHT - 15)
    _text(svg, y_title, 0, 0, transform=f"translate(18 {_HEIGHT / 2}) rotate(-90)")
    for mark in steps(y_end, 8):
        _line(svg, str(_LEFT), y_at(mark), str(_WIDTH - _RIGHT), y_at(mark))
        _text(
            svg, f"{mark:,g}" if mark < 1 else f"{mark:,.10g}", _LEFT - 8, float(y_at(mark)) + 4, anchor="end"
        )
    for mark, label in x_marks.items():
        _line(svg, x_at(mark), str(_TOP), x_at(mark), str(_HEIGHT - _BOTTOM))
        _text(svg, label, float(x_at(mark)), _HEIGHT - _BOTTOM + 20)
    line = " ".join(f"{x_at(x)},{y_at(y)}" for x, y in points)
    style = {"fill": "none", "stroke": "#1f5fa8", "stroke-width": "2", "stroke-linejoin": "round"}
    ElementTree.SubElement(svg, "polyline", {"points": line} | style)
    ElementTree.indent(svg)
    rendered: bytes = ElementTree.tostring(svg, encoding="utf-8", xml_declaration=True)
    return rendered


def _line(svg: ElementTree.Element, x1: str, y1: str, x2: str, y2: str) -> None:
    ElementTree.SubElement(svg, "line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "stroke": "#d8d8d8"})


def _text(
    svg: ElementTree.Element,
    text: str,
    x: float,
    y: float,
    *,
    anchor: str = "middle",
    size: int = 13,
    transform: str | None = None,
) -> None:
    attributes = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "font-size": str(size)}
    if transform is not None:
        attributes["transform"] = transform
    ElementTree.SubElement(svg, "text", attributes).text = text
