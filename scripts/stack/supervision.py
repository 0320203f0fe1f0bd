"""Programs kept running by the library supervisor. What is peculiar to that library stays in this module.

``Supervision`` runs ``supervisord`` as a child in a session of its own, so that Ctrl-C reaches only us, and talks
to it over a socket in the data folder. When we are killed, supervisord stops everything in order by itself; when
it is killed, each program gets its stop signal from the kernel (Linux).
"""

import ctypes
import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scripts.stack.secret_file import write_private
from scripts.stack.server import StackError, wait_until

_START_TIMEOUT_S: Final = 10.0
# supervisor waits one second longer at each attempt to start a program and then gives up for good. It gives up
# after this many, and ``keep_running`` begins again: the pause never grows beyond this many seconds.
_ATTEMPTS: Final = 5
_LOG_MAX_BYTES: Final = 10_000_000
_LOG_BACKUPS: Final = 3
# An address of this family holds 104 bytes at least, of which supervisord appends up to 11 while it binds.
_SOCKET_PATH_MAX_BYTES: Final = 90
_PR_SET_PDEATHSIG: Final = 1

STOPPED_BY_ITSELF: Final = frozenset({"BACKOFF", "EXITED", "FATAL", "STOPPED", "UNKNOWN"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program to keep running. Programs of a higher stage are stopped first, those of one stage together."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    stage: int
    stop_signal: signal.Signals
    stop_timeout_s: float


@dataclass(frozen=True, slots=True)
class State:
    """What a program is doing: supervisor's word for it (RUNNING, BACKOFF, ...) and its process id, 0 for none."""

    name: str
    pid: int


class Supervision:
    """Start programs, see how they are, stop them all in order. Describing it starts nothing.

    ``keep_open`` is a file descriptor that stays open as long as any program may be running.
    """

    def __init__(self, folder: Path, programs: Sequence[Program], keep_open: int) -> None:
        self._folder = folder.absolute()
        self._logs = self._folder / "logs"
        self._programs = {program.name: program for program in programs}
        self._keep_open = keep_open
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_folder = self._folder

    def log(self, name: str) -> Path:
        """Return the file that holds what program ``name`` prints."""
        return self._logs / f"{name}.log"

    def start(self) -> None:
        """Start supervisord, which starts no program yet. Blocks until it answers. Raises StackError."""
        self._logs.mkdir(mode=0o700, exist_ok=True)
        if len(os.fsencode(self._folder / "supervisor.sock")) > _SOCKET_PATH_MAX_BYTES:
            self._socket_folder = Path(tempfile.mkdtemp(prefix="todo-"))
        self._socket.unlink(missing_ok=True)
        configuration = self._folder / "supervisord.conf"
        write_private(configuration, self._configuration())
        with self.log("supervisord.out").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(os.getpid()), "-n", "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[self._keep_open],
            )
        try:
            wait_until(self._answers, _START_TIMEOUT_S, "supervisord")
        except TimeoutError as ex:
            raise StackError(f"supervisord does not answer:\n{tail(self.log('supervisord'))}") from ex

    def _answers(self) -> bool:
        if not self.is_alive():
            raise StackError(f"supervisord did not start:\n{tail(self.log('supervisord.out'))}")
        try:
            self._ask("getState")
        except (OSError, http.client.HTTPException):
            return False
        return True

    def is_alive(self) -> bool:
        """Say whether supervisord itself is running."""
        return self._process is not None and self._process.poll() is None

    def start_program(self, name: str) -> None:
        """Start one program and return at once. Raises StackError when it cannot be executed."""
        try:
            self._call("startProcess", self._full_name(name), False)
        except xmlrpc.client.Fault as ex:
            raise StackError(f"{name} cannot be started ({ex.faultString}).") from ex

    def state(self, name: str) -> State:
        information = self._call("getProcessInfo", self._full_name(name))
        return State(information["statename"], information["pid"])

    def keep_running(self) -> dict[str, State]:
        """Start again what supervisor has given up, and return how every program is."""
        states = {}
        for information in self._call("getAllProcessInfo"):
            states[information["name"]] = State(information["statename"], information["pid"])
            if information["statename"] == "FATAL":
                self.start_program(information["name"])
        return states

    def stop(self) -> None:
        """Stop every program, the highest stage first, then supervisord. Blocks up to the sum of the time limits.

        May be called at any time and more than once.
        """
        process, self._process = self._process, None
        if process is None:
            return
        try:
            # A signal would do, but supervisord looks for signals only once a second.
            self._ask("shutdown")
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            process.terminate()
        deadline = time.monotonic() + self._stop_timeout_s()
        while process.poll() is None and time.monotonic() < deadline:
            self._wake()
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()
        if self._socket_folder != self._folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)

    def _wake(self) -> None:
        """Make supervisord look after its programs now; by itself it does once a second."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(os.fsencode(self._socket))

    def _stop_timeout_s(self) -> float:
        stages: dict[int, float] = {}
        for program in self._programs.values():
            stages[program.stage] = max(stages.get(program.stage, 0.0), program.stop_timeout_s)
        return sum(stages.values()) + 2.0

    def _call(self, method: str, *arguments: object) -> Any:
        try:
            return self._ask(method, *arguments)
        except (OSError, http.client.HTTPException) as ex:
            raise StackError(f"supervisord stopped answering:\n{tail(self.log('supervisord'))}") from ex

    def _ask(self, method: str, *arguments: object) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        # One connection a call: the transport does not recover when a call failed or was interrupted.
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        try:
            supervisor = xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor
            return getattr(supervisor, method)(*arguments)
        finally:
            transport.close()

    def _full_name(self, name: str) -> str:
        return f"{_group(self._programs[name].stage)}:{name}"

    @property
    def _socket(self) -> Path:
        return self._socket_folder / "supervisor.sock"

    def _configuration(self) -> str:
        sections: dict[str, dict[str, str]] = {
            "supervisord": {
                "logfile": _value(self.log("supervisord")),
                "logfile_maxbytes": str(_LOG_MAX_BYTES),
                "logfile_backups": str(_LOG_BACKUPS),
                "pidfile": _value(self._folder / "supervisord.pid"),
                "silent": "true",
                # Without the line it complains that it runs as root; with it, it stays who it is.
                **({"user": "root"} if os.geteuid() == 0 else {}),
            },
            "unix_http_server": {"file": _value(self._socket), "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
        }
        for stage in sorted({program.stage for program in self._programs.values()}):
            members = [program.name for program in self._programs.values() if program.stage == stage]
            sections[f"group:{_group(stage)}"] = {"programs": ",".join(members), "priority": str(stage)}
        for program in self._programs.values():
            sections[f"program:{program.name}"] = self._program_section(program)
        return "\n".join(
            f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())
            for section, settings in sections.items()
        )

    def _program_section(self, program: Program) -> dict[str, str]:
        return {
            "command": _value(shlex.join([*_end_with_parent(program.stop_signal), *program.command])),
            "environment": ",".join(f"{key}={_quoted(text)}" for key, text in program.environment.items()),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": "1",
            "startretries": str(_ATTEMPTS),
            "stopsignal": program.stop_signal.name.removeprefix("SIG"),
            "stopwaitsecs": str(int(program.stop_timeout_s)),
            "killasgroup": "true",
            "redirect_stderr": "true",
            # supervisor expands this one twice.
            "stdout_logfile": _value(self.log(program.name)).replace("%", "%%"),
            "stdout_logfile_maxbytes": str(_LOG_MAX_BYTES),
            "stdout_logfile_backups": str(_LOG_BACKUPS),
        }


def tail(log: Path, lines: int = 20) -> str:
    """Return the last ``lines`` of ``log``, nothing when there is no such file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _group(stage: int) -> str:
    return f"stage{stage}"


def _value(text: str | Path) -> str:
    """Return ``text`` as supervisor's configuration can hold it. Raises StackError when it cannot."""
    if re.search(r"[\n\r]|\s[;#]", str(text)):
        raise StackError(
            f"supervisor cannot cope with a line break, ' ;' or ' #' in {str(text)!r}; "
            "use a folder without them (`--data-dir`)."
        )
    return str(text).replace("%", "%%")


def _quoted(text: str) -> str:
    # supervisor knows no escape inside quotes, and takes off all that it finds at the ends.
    if re.search("[\"']", text):
        raise StackError("A setting that holds a quotation mark cannot be handed to a program.")
    return _value(f'"{text}"')


def _end_with_parent(stop_signal: signal.Signals) -> list[str]:
    """Return the arguments in front of a command that stop it when supervisord is killed; none where impossible."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", stop_signal.name.removeprefix("SIG")] if setpriv else []


def _run_supervisord(parent_pid: int, arguments: list[str]) -> None:
    """Become supervisord, to be told by the kernel (Linux) when ``parent_pid`` dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:
            return
    from supervisor.supervisord import main

    main(arguments)


if __name__ == "__main__":
    _run_supervisord(int(sys.argv[1]), sys.argv[2:])
