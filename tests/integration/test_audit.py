"""``make audit``: pip-audit itself, over a database of vulnerabilities that the test serves."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from scripts.audit import audit
from scripts.stack.server import free_port

VULNERABILITY = {
    "id": "PYSEC-2099-1",
    "summary": "made for a test",
    "affected": [
        {
            "package": {"name": "leaky", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.2"}]}],
        }
    ],
}


class Database(BaseHTTPRequestHandler):
    """Answers as OSV does: ``leaky`` has a vulnerability, everything else none, ``broken`` gets an error."""

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = question["package"]["name"]
        body = json.dumps({"vulns": [VULNERABILITY]} if name == "leaky" else {}).encode()
        self.send_response(500 if name == "broken" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def database():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Database)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
    server.shutdown()
    server.server_close()
    thread.join(10)


def ask(tmp_path, url, *pins):
    requirements = tmp_path / "constraints.txt"
    requirements.write_text("\n".join(pins))
    return CliRunner().invoke(audit, ["--osv-url", url, "--requirements", str(requirements)])


def test_a_known_vulnerability_fails_the_audit_and_names_the_version_that_mends_it(tmp_path, database):
    answer = ask(tmp_path, database, "leaky==1.1", "sound==2.0")
    assert answer.exit_code == 1
    assert "leaky 1.1: PYSEC-2099-1, fixed in 1.2" in answer.output
    assert "1 known vulnerabilities in 2 of 2 pinned packages" in answer.output


def test_versions_without_vulnerabilities_pass(tmp_path, database):
    answer = ask(tmp_path, database, "sound==2.0")
    assert answer.exit_code == 0
    assert "0 known vulnerabilities in 1 of 1 pinned packages" in answer.output


def test_a_database_that_cannot_be_reached_is_a_line_and_no_failure(tmp_path):
    answer = ask(tmp_path, f"http://127.0.0.1:{free_port()}/v1/query", "sound==2.0")
    assert answer.exit_code == 0
    assert "audit skipped" in answer.output


def test_a_database_that_answers_with_errors_is_a_failure(tmp_path, database):
    answer = ask(tmp_path, database, "broken==1.0")
    assert answer.exit_code == 1
    assert "pip-audit failed" in answer.output
