"""A real nginx in front of API instances, from the one installed on the machine, configured by docker/nginx."""

import grp
import os
import pwd
import re
import resource
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Final

from scripts.stack.server import StackError

# The files that the compose stack and the image of nginx use.
SOURCE: Final = Path(__file__).parents[2] / "docker" / "nginx"
# As in docker/.env.example, but for what only a test wants to be out of the way.
DEFAULTS: Final = {
    "NGINX_MICROCACHE": "off",
    "WRITES_PER_TOKEN_PER_S": "1000000",
    "WRITES_PER_ADDRESS_PER_S": "1000000",
    "WRITES_BURST": "1000000",
    "CONNECTIONS_PER_ADDRESS": "65535",
    # For an instance of one process; docker/docker-compose.scale.yml has two in each.
    "WRITES_UNDER_WAY": "64",
}


def find_nginx() -> Path:
    """Return nginx's program. Raises StackError when it is not installed."""
    # Debian keeps it off the PATH of ordinary users.
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        raise StackError("nginx is not installed (Debian: apt-get install nginx).")
    return Path(found)


def user_line() -> str:
    """Return the directive that lets nginx stay who it is: as root its workers become one who may reach no folder."""
    if os.geteuid() != 0:
        return ""
    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(0).gr_name};"


class LocalNginx:
    """A ``LocalServer``: balances over the API instances that listen on ``api_ports``; 127.0.0.1 only.

    ``variables`` replace those of ``DEFAULTS``. ``inner_port`` is that of nginx's own figures.
    """

    name = "nginx"
    # Finishes what it has begun.
    stop_signal = signal.SIGQUIT
    stop_timeout_s = 5.0

    def __init__(
        self,
        folder: Path,
        port: int,
        api_ports: Sequence[int],
        *,
        inner_port: int,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self.inner_port = inner_port
        self._folder = folder.absolute()
        self._api_ports = list(api_ports)
        self._variables = {
            **DEFAULTS,
            **(variables or {}),
            "NGINX_PORT": f"127.0.0.1:{port}",
            "NGINX_INNER_PORT": f"127.0.0.1:{inner_port}",
        }

    def prepare(self) -> None:
        (self._folder / "conf.d").mkdir(parents=True, exist_ok=True)
        text = (SOURCE / "nginx.conf").read_text().replace("/tmp/", f"{self._folder}/")  # noqa: S108
        text = text.replace("/dev/stderr", "stderr").replace("/dev/stdout", f"{self._folder}/access.log")
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        text = text.replace("worker_rlimit_nofile 65536;", f"worker_rlimit_nofile {min(limit, 65536)};")
        (self._folder / "nginx.conf").write_text(f"daemon off;\n{user_line()}\n{text}")
        self.point_at(self._api_ports)
        server = (SOURCE / "templates" / "server.conf.template").read_text()
        server = Template(server).safe_substitute(self._variables).replace("/tmp/", f"{self._folder}/")  # noqa: S108
        server = server.replace("/dev/stderr", "stderr")
        (self._folder / "conf.d" / "server.conf").write_text(server)

    def point_at(self, api_ports: Sequence[int]) -> None:
        """Write which instances there are. A running nginx must be told by SIGHUP.

        In place of the names of the original, which are looked up again and again, the addresses themselves: a
        lookup needs nginx 1.27.3, and the name service of a container network.
        """
        text = (SOURCE / "templates" / "upstreams.conf.template").read_text()
        text = re.sub(r"^resolver .*\n", "", text, flags=re.MULTILINE)
        text, found = re.subn(
            r"^    server \S+ resolve (.*)$",
            lambda line: "\n".join(f"    server 127.0.0.1:{port} {line[1]}" for port in api_ports),
            text,
            flags=re.MULTILINE,
        )
        text = Template(text).safe_substitute(self._variables)
        assert found == 2, "two upstreams, one server line each"
        (self._folder / "conf.d" / "upstreams.conf").write_text(text)

    def command(self) -> list[str]:
        place = ["-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]
        return [str(find_nginx()), "-e", "stderr", *place]

    def environment(self) -> dict[str, str]:
        return {}

    def is_ready(self) -> bool:
        # An answer: it listens before it has workers, and until then a SIGHUP is lost.
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                return connection.recv(1) != b""
        except OSError:
            return False
