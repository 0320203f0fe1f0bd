"""wrk, the load generator: one run and what it says about it."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from scripts.bench.load import INTERVAL_S, PERCENTILES, TIMEOUT_S, Load, Plan, ignore
from scripts.stack.server import StackError

_SCRIPT: Final = Path(__file__).with_name("wrk.lua")


class Wrk:
    """``threads`` is how many cores it may use. Its closed loop corrects latencies for the answers it waited for.

    ``timeline`` costs it 2 % of its speed. Raises StackError when wrk is not installed.
    """

    def __init__(self, threads: int = 1, *, timeline: bool = False) -> None:
        found = shutil.which("wrk")
        if found is None:
            raise StackError(
                "wrk, which makes the load, is not on PATH; install it (Debian: apt-get install wrk)."
            )
        self._program = found
        self.cores = threads
        self._timeline = timeline

    @property
    def version(self) -> str:
        # It prints its usage with it, and exits with 1.
        done = subprocess.run([self._program, "-v"], check=False, capture_output=True, text=True)
        return " ".join(done.stdout.split()[:2])

    def load(self, plan: Plan, begun: Callable[[], None] = ignore) -> Load:
        """See ``Generator.load``. A rate is not for wrk."""
        assert plan.rate is None
        threads = min(self.cores, plan.connections)
        command = [self._program, f"-t{threads}", f"-c{plan.connections}", f"-d{plan.duration_s}s"]
        command += [f"--timeout={TIMEOUT_S}s"]
        for name, value in plan.headers.items():
            command += ["-H", f"{name}: {value}"]
        with TemporaryDirectory(prefix="todo-wrk-") as folder:
            script = Path(folder, "wrk.lua")
            lines = _SCRIPT.read_text().replace("PERCENTILES", ", ".join(map(str, PERCENTILES[:-1])))
            if plan.body is not None:
                lines += f'wrk.method = "POST"\nwrk.body = {_lua_string(plan.body)}\n'
            script.write_text(lines)
            command += ["-s", str(script), plan.url, *(["--", "timeline"] if self._timeline else [])]
            begun()
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise StackError(
                f"wrk exited with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return parse(done.stdout, self.version)


def _lua_string(text: str) -> str:
    """Return ``text`` as Lua reads it, byte for byte."""
    return '"' + "".join(f"\\{byte:03d}" for byte in text.encode()) + '"'


def parse(output: str, version: str = "wrk") -> Load:
    """Read what wrk.lua prints. Raises StackError when something is missing there."""
    values: Counter[str] = Counter()
    for line in output.splitlines():
        name, tab, value = line.partition("\t")
        if tab and value.replace(".", "").replace("e+", "").isdigit():
            values[name] += int(float(value))
    try:
        seconds = values.pop("duration_us") / 1e6
        latency_s = {percent: values.pop(f"latency_us.{percent:g}") / 1e6 for percent in PERCENTILES}
        requests = values.pop("requests")
    except KeyError as ex:
        raise StackError(f"This version of wrk prints something else than expected:\n{output}") from ex
    return Load(
        generator=version,
        requests=requests,
        failures=sum(count for name, count in values.items() if name.startswith("failures.")),
        seconds=seconds,
        latency_s=latency_s,
        timeline=_timeline(
            {int(name[5:]): count for name, count in values.items() if name[:5] == "sent."}, seconds
        ),
    )


def _timeline(sent: dict[int, int], seconds: float) -> list[int]:
    if not sent:
        return []
    start = min(sent)
    # The slots are those of the clock: the first and the last are cut off somewhere.
    return [sent.get(start + slot, 0) for slot in range(1, round(seconds / INTERVAL_S))]
