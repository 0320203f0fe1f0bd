"""hey, a load generator: one run and what it says about it."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Final

from scripts.bench.load import TIMEOUT_S, Load, Plan, ignore
from scripts.stack.server import StackError

_LATENCY: Final = re.compile(r"^\s*(\d+)% in ([\d.]+) secs", re.MULTILINE)


class Hey:
    """Reports no more than ten percentiles, to 0.1 ms, and no timeline. Raises StackError when it is not installed."""

    def __init__(self) -> None:
        found = shutil.which("hey")
        if found is None:
            raise StackError("hey is not on PATH; install it (Debian: apt-get install hey).")
        self._program = found
        self.cores = os.cpu_count() or 1

    def load(self, plan: Plan, begun: Callable[[], None] = ignore) -> Load:
        """See ``Generator.load``. A rate is not for hey: its own waits for answers."""
        assert plan.rate is None
        assert plan.body is None
        # Without the flag Go asks for gzip by itself.
        command = [self._program, "-z", f"{plan.duration_s}s", "-c", str(plan.connections)]
        command += ["-t", str(TIMEOUT_S), "-disable-compression"]
        for name, value in plan.headers.items():
            command += ["-H", f"{name}: {value}"]
        begun()
        done = subprocess.run([*command, plan.url], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise StackError(
                f"hey exited with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return parse(done.stdout)


def parse(output: str) -> Load:
    """Read what hey prints. Raises StackError when something is missing there."""
    statuses = [(int(status), int(count)) for status, count in re.findall(r"\[(\d{3})]\s+(\d+) resp", output)]
    _, _, errors = output.partition("Error distribution:")
    seconds = re.search(r"^\s*Total:\s+([\d.]+) secs", output, re.MULTILINE)
    slowest = re.search(r"^\s*Slowest:\s+([\d.]+) secs", output, re.MULTILINE)
    latency_s = {float(percent): float(value) for percent, value in _LATENCY.findall(output)}
    if seconds is None or slowest is None or (statuses and not {50.0, 90.0, 99.0} <= set(latency_s)):
        raise StackError(f"This version of hey prints something else than expected:\n{output}")
    return Load(
        generator="hey",
        requests=sum(count for _, count in statuses),
        failures=sum(count for status, count in statuses if status >= 400)
        + sum(map(int, re.findall(r"^\s*\[(\d+)]", errors, re.MULTILINE))),
        seconds=float(seconds[1]),
        latency_s=latency_s | {100.0: float(slowest[1])},
    )
