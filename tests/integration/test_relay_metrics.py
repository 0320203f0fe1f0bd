"""What the relay process tells Prometheus."""

import subprocess
import sys
import urllib.request

from scripts.stack.server import free_port
from tests.integration.test_relay import RelayProcess
from tests.support.deployment import INHERITED
from todo_api import relay_metrics


def test_the_relay_exports_what_is_documented_and_a_port_that_is_taken_ends_its_start(tmp_path, redis_url):
    port = str(free_port())
    relay = RelayProcess(tmp_path, redis_url, RELAY_METRICS_PORT=port)
    try:
        relay.start_and_wait()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        exported = {line.split()[2] for line in lines if line.startswith("# TYPE todo_")}
        assert exported == {metric.name for metric in relay_metrics.METRICS}
        assert 'todo_relay_records_total{outcome="acknowledged"} 1.0' in lines

        other = INHERITED | {
            "COMMAND_LOG": "streams",
            "REDIS_URL": redis_url,
            "PUBLISHER_SOCKET": str(tmp_path / "other.sock"),
            "RELAY_METRICS_PORT": port,
        }
        done = subprocess.run(
            [sys.executable, "-m", "todo_api.relay"],
            cwd=tmp_path, env=other, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2
        assert f"RELAY_METRICS_PORT {port} cannot be had" in done.stderr
    finally:
        relay.close()
