"""``make audit``: are there known vulnerabilities in the versions we pin? By pip-audit, from the OSV database.

Exits with 1 for a finding, or when pip-audit fails. A database that cannot be reached is a line and exit code 0: a
build without a network must not fail for want of news.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import click

CONSTRAINTS: Final = Path(__file__).parents[1] / "constraints.txt"
OSV_URL: Final = "https://api.osv.dev/v1/query"
_PROBE_TIMEOUT_S: Final = 10
_AUDIT_TIMEOUT_S: Final = 300


@click.command()
@click.option("--osv-url", default=OSV_URL, show_default=True, help="A database that answers as OSV does.")
@click.option(
    "--requirements",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=CONSTRAINTS,
    help="The pinned versions to look up; constraints.txt unless given.",
)
def audit(osv_url: str, requirements: Path) -> None:
    """Look the pinned versions up in a database of vulnerabilities."""
    if not _is_reachable(osv_url):
        click.echo(f"audit skipped: {osv_url} cannot be reached, so nothing is known of new vulnerabilities")
        return
    command = [
        *[
            sys.executable,
            "-m",
            "pip_audit",
            "--requirement",
            str(requirements),
            "--no-deps",
            "--disable-pip",
        ],
        *[
            "--vulnerability-service",
            "osv",
            "--osv-url",
            osv_url,
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ],
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_AUDIT_TIMEOUT_S)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        raise click.ClickException(f"pip-audit failed:\n{done.stderr[-2000:]}") from None
    sys.exit(1 if _report(packages) else 0)


def _report(packages: list[dict[str, Any]]) -> int:
    """Say what was found; return how many vulnerabilities."""
    looked_up = [package for package in packages if "skip_reason" not in package]
    findings = [(package, found) for package in looked_up for found in package["vulns"]]
    for package, found in findings:
        fixed = ", ".join(found["fix_versions"]) or "no version yet"
        click.echo(f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
    click.echo(
        f"{len(findings)} known vulnerabilities in {len(looked_up)} of {len(packages)} pinned packages"
    )
    return len(findings)


def _is_reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_TIMEOUT_S):  # noqa: S310 OSV_URL, or what its caller chose
            return True
    except urllib.error.HTTPError:
        return True  # It wants a question; it is there.
    except OSError:
        return False


if __name__ == "__main__":
    audit()
