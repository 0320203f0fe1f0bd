"""wrk, the load generator: one run and what it says about it."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.stack.server import StackError

CONNECTIONS: Final = 64
_UNITS_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Load:
    """One run. ``failures`` are answers other than 2xx and 3xx, and socket errors (time-outs included)."""

    requests: int
    requests_per_s: float
    p99_s: float
    failures: int


def find_wrk() -> Path:
    """Return wrk's program. Raises StackError when it is not installed."""
    found = shutil.which("wrk")
    if found is None:
        raise StackError(
            "wrk, which makes the load, is not on PATH; install it (Debian: apt-get install wrk)."
        )
    return Path(found)


def version(program: Path) -> str:
    # It prints its usage with it, and exits with 1.
    done = subprocess.run([program, "-v"], check=False, capture_output=True, text=True)
    return " ".join(done.stdout.split()[:2])


def load(program: Path, url: str, seconds: int, headers: Mapping[str, str]) -> Load:
    """Ask for ``url`` on 64 connections from one thread. Blocks for ``seconds``. Raises StackError when wrk fails."""
    command = [str(program), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run([*command, url], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise StackError(f"wrk exited with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """Read what ``wrk --latency`` prints. Raises StackError when something is missing there."""
    requests = re.search(r"^\s*(\d+) requests in ", output, re.MULTILINE)
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", output, re.MULTILINE)
    p99 = re.search(r"^\s*99%\s+([\d.]+)(us|ms|s|m|h)$", output, re.MULTILINE)
    if requests is None or rate is None or p99 is None:
        raise StackError(f"This version of wrk prints something else than expected:\n{output}")
    failures = 0
    if refused := re.search(r"^\s*Non-2xx or 3xx responses: (\d+)", output, re.MULTILINE):
        failures += int(refused[1])
    if errors := re.search(r"^\s*Socket errors: (.*)$", output, re.MULTILINE):
        failures += sum(map(int, re.findall(r"\d+", errors[1])))
    return Load(int(requests[1]), float(rate[1]), float(p99[1]) * _UNITS_S[p99[2]], failures)
