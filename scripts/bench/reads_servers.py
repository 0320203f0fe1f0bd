"""The processes of ``todo bench reads``: gunicorn, the worker, and nginx for comparison."""

import grp
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from scripts.stack.server import StackError
from todo_api.core.cache import PageCache

# Everything is stated, so that the distribution's own configuration plays no part.
_NGINX: Final = """\
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
    open_file_cache max=16 inactive=1h;
    open_file_cache_valid 1h;
    gzip off;
    types {{ }}
    default_type application/json;
    client_body_temp_path "{folder}/temporary";
    proxy_temp_path "{folder}/temporary";
    fastcgi_temp_path "{folder}/temporary";
    uwsgi_temp_path "{folder}/temporary";
    scgi_temp_path "{folder}/temporary";
    server {{
        listen 127.0.0.1:{port};
        root "{folder}/files";
    }}
}}
"""


class Api:
    """``gunicorn wsgi:app``, ready when ``/ready`` says so. ``settings`` are environment variables."""

    name = "gunicorn"
    stop_signal = signal.SIGTERM
    stop_timeout_s = 25.0

    def __init__(self, port: int, settings: Mapping[str, str]) -> None:
        self.port = port
        self._settings = dict(settings)

    def prepare(self) -> None:
        pass

    def command(self) -> list[str]:
        options = ["--config", "python:config.gunicorn_conf", "--bind", f"127.0.0.1:{self.port}"]
        return [sys.executable, "-m", "gunicorn", *options, "wsgi:app"]

    def environment(self) -> dict[str, str]:
        return self._settings

    def is_ready(self) -> bool:
        try:
            return get(self.port, "/ready", timeout_s=1.0)[0] == 200
        except OSError:
            return False


class Worker:
    """``python -m todo_worker``, ready when it has published the generation in Redis."""

    name = "worker"
    stop_signal = signal.SIGTERM
    stop_timeout_s = 25.0

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = dict(settings)
        self._cache = PageCache(settings["REDIS_URL"], pool_size=2, ttl_s=300)

    def prepare(self) -> None:
        pass

    def command(self) -> list[str]:
        return [sys.executable, "-m", "todo_worker"]

    def environment(self) -> dict[str, str]:
        return self._settings

    def is_ready(self) -> bool:
        try:
            return self._cache.state() is not None
        finally:
            self._cache.close()


class Nginx:
    """nginx with ``processes`` workers, serving ``files`` (contents by name) and nothing else."""

    name = "nginx"
    stop_signal = signal.SIGTERM
    stop_timeout_s = 5.0

    def __init__(
        self, program: Path, folder: Path, port: int, processes: int, files: Mapping[str, bytes]
    ) -> None:
        self.port = port
        self._program = program
        self._folder = folder
        self._processes = processes
        self._files = dict(files)

    def prepare(self) -> None:
        (self._folder / "files").mkdir(parents=True)
        for name, contents in self._files.items():
            (self._folder / "files" / name).write_bytes(contents)
        # As root its workers would become a user who may be unable to reach the folder.
        user = f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(0).gr_name};" if os.geteuid() == 0 else ""
        self._configuration.write_text(
            _NGINX.format(user=user, processes=self._processes, folder=self._folder, port=self.port)
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


def worker_class(output: Path) -> str:
    """Return gunicorn's worker class as the API names it when it starts, from the output of ``Api``.

    Raises StackError when it does not.
    """
    for line in output.read_text(errors="replace").splitlines():
        if '"api.start"' in line:
            return str(json.loads(line)["worker_class"])
    raise StackError(f"The API did not say in {output} how it is set up.")


def get(
    port: int, target: str, headers: Mapping[str, str] | None = None, timeout_s: float = 30.0
) -> tuple[int, bytes]:
    """Return status and body of one GET. Raises OSError when nobody answers in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", target, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as ex:
        raise ConnectionError(f"no HTTP from port {port}") from ex
    finally:
        connection.close()
