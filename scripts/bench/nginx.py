"""nginx, for comparison: it answers bytes from a file, or bytes that stand in its configuration."""

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from scripts.stack.server import StackError

# Everything is stated, so that the distribution's own configuration plays no part.
_CONFIGURATION: Final = """\
{user}
worker_processes {processes};
daemon off;
pid "{folder}/nginx.pid";
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    {open_file_cache}
    gzip off;
    types {{ }}
    default_type application/json;
    client_body_temp_path "{folder}/temporary";
    proxy_temp_path "{folder}/temporary";
    fastcgi_temp_path "{folder}/temporary";
    uwsgi_temp_path "{folder}/temporary";
    scgi_temp_path "{folder}/temporary";
{pieces}
    server {{
        listen 127.0.0.1:{port};
        root "{folder}/files";
{locations}
    }}
}}
"""
# A word of the configuration may have 4,096 bytes.
_PIECE_BYTES: Final = 2_000


class Nginx:
    """nginx with ``processes`` workers. It serves ``files`` (contents by name) at ``/<name>``, and ``returned``
    (likewise) at ``/return/<name>`` by the directive ``return 200``.

    Files are sent as Debian's and nginx's own examples have it: sendfile, and headers in the first packet. With
    ``keeps_open`` it also keeps them open (``open_file_cache``), which is off unless asked for.
    """

    stop_signal = signal.SIGTERM
    stop_timeout_s = 5.0

    def __init__(
        self,
        program: Path,
        folder: Path,
        port: int,
        processes: int,
        files: Mapping[str, bytes],
        returned: Mapping[str, bytes],
        *,
        keeps_open: bool,
    ) -> None:
        self.name = folder.name
        self.port = port
        self._keeps_open = keeps_open
        self._program = program
        self._folder = folder
        self._processes = processes
        self._files = dict(files)
        self._returned = dict(returned)

    def prepare(self) -> None:
        (self._folder / "files").mkdir(parents=True)
        for name, contents in self._files.items():
            (self._folder / "files" / name).write_bytes(contents)
        # As root its workers would become a user who may be unable to reach the folder.
        user = f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(0).gr_name};" if os.geteuid() == 0 else ""
        pieces, locations = _directives(self._returned)
        self._configuration.write_text(
            _CONFIGURATION.format(
                user=user,
                processes=self._processes,
                folder=self._folder,
                port=self.port,
                open_file_cache="open_file_cache max=16 inactive=1h;" if self._keeps_open else "",
                pieces=pieces,
                locations=locations,
            )
        )

    @property
    def _configuration(self) -> Path:
        return self._folder / "nginx.conf"

    def command(self) -> list[str]:
        return [
            *[str(self._program), "-e", "stderr"],
            *["-p", str(self._folder), "-c", str(self._configuration)],
        ]

    def environment(self) -> dict[str, str]:
        return {}

    def is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0):
                return True
        except OSError:
            return False


def _directives(returned: Mapping[str, bytes]) -> tuple[str, str]:
    """Return the variables that hold the bodies in pieces, and the locations that put them together."""
    pieces, locations = [], []
    for number, (name, contents) in enumerate(returned.items()):
        text = contents.decode()
        assert "$" not in text, "it would be taken for a variable"
        names = []
        for at in range(0, len(text), _PIECE_BYTES):
            names.append(f"body_{number}_{at}")
            piece = text[at : at + _PIECE_BYTES].replace("\\", "\\\\").replace("'", "\\'")
            pieces.append(f"    map '' ${names[-1]} {{ default '{piece}'; }}")
        body = "".join(f"${{{name}}}" for name in names)
        locations.append(f'        location = /return/{name} {{ return 200 "{body}"; }}')
    return "\n".join(pieces), "\n".join(locations)


def find_nginx() -> Path:
    """Return nginx's program. Raises StackError when it is not installed."""
    # Debian keeps it off the PATH of ordinary users.
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        raise StackError(
            "nginx, which is measured beside the API, is not installed (Debian: apt-get install nginx)."
        )
    return Path(found)


def nginx_version(program: Path) -> str:
    done = subprocess.run([program, "-v"], check=True, capture_output=True, text=True)
    return done.stderr.rpartition("/")[2].split()[0]
