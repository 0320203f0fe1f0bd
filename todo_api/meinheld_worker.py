"""Our gunicorn worker class on meinheld: ``worker_class = "todo_api.meinheld_worker.MeinheldWorker"``.

meinheld's own class is not used: it replaces methods of gunicorn's logger, so that the master dies when it
wants to report a worker that was killed; its heartbeat is one that gunicorn no longer reads, so that worker
timeouts never fire; it ignores ``graceful_timeout`` and ``max_requests``.

One thread runs the event loop and every request; background threads run while the loop waits. A request that may
change something (all but GET and HEAD) runs in a greenlet, so that others are served while it waits
(``core.waiting``).

Of gunicorn's settings ``worker_connections``, ``threads``, ``accesslog``, ``statsd_host`` and the ``limit_request_*``
have no effect. Fixed by meinheld: 128 header fields, 8 KiB each and for the request target, or 400.

What the application must know of its environ:

- APPSEC: ``X_Forwarded_For`` and ``X-Forwarded-For`` arrive under one key; so for every header with a dash.
  Nothing a proxy sets may be believed unless the proxy drops names with underscores, as nginx does.
- APPSEC: ``REMOTE_ADDR`` is the address of whoever connected last, not of the client that asks: meinheld keeps
  a pointer into the one buffer of ``inet_ntoa``. ``SERVER_NAME`` and ``SERVER_PORT`` are constants.
- There is no ``QUERY_STRING`` when the target has none.
- ``wsgi.input`` holds the whole body, decoded when it was chunked, and ends by itself.
- A plain GET of a hot page does not get here at all: the server answers it by ``shortcut`` of the application.
- An answer to HEAD must have no body; none may have Date, Server or Connection, which meinheld writes (it drops and
  leaks the first two, and repeats the third).

It needs the meinheld of ``scripts/meinheld/install.py``: in the one that was released, a request can end the process.
"""

import os
import re
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

from gunicorn.workers.base import Worker
from meinheld import server

from todo_api.core import waiting
from todo_api.shortcut import Prepared, Shortcut

# APPSEC: the one that was released can be ended by any client, and cannot suspend a request.
if int(version("meinheld").partition("+todo.")[2] or 0) < 6:
    raise ImportError("this meinheld is not that of scripts/meinheld/install.py")

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# Above the largest body the application accepts (1 MiB), so that it answers 413 itself, as a problem, to
# everything within reason; beyond, meinheld refuses with a page of its own and hangs up.
BODY_MAX_BYTES: Final = 2 * 1024 * 1024
# Descriptors a worker may have. meinheld indexes a table of this size without looking (a larger descriptor
# is a write beyond it), and stops serving when accept() finds no descriptor left.
OPEN_FILES_MAX: Final = 65536
# meinheld's timers reach no further, and run up to two seconds late.
STOP_TIMEOUT_MAX_S: Final = 120
# Of graceful_timeout, what is kept for that and for worker_exit: at its end the master sends SIGKILL.
EXIT_RESERVE_S: Final = 4

# How long a stop waits for a request on connections that are kept: a proxy may have sent one when it begins, and tries
# elsewhere once they are closed. Each is there for no more than these, and not for all of graceful_timeout.
IDLE_TIMEOUT_S: Final = 3


class MeinheldWorker(Worker):  # type: ignore[misc]
    """A gunicorn worker like any other: timeouts, graceful stop, max_requests and all hooks work."""

    _epoll: select.epoll | None = None
    _exit_code = 0
    _listen_fds: Sequence[int] = ()
    _stop_deadline: float | None = None
    _watched_at = 0.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # One object: meinheld lets go of the last one it was given while that one runs. Made here, because a signal may
        # come from the fork on, while the application is still loading.
        self._watchdog = self._watch

    def run(self) -> None:
        """Serve until stopped; then answer who is there, within ``graceful_timeout``. Exits 1 after a timeout."""
        if not self.alive:
            return  # SIGTERM came while the application was loading.
        hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        open_files = OPEN_FILES_MAX
        if hard_limit != resource.RLIM_INFINITY:
            open_files = min(open_files, hard_limit)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, hard_limit))
        # meinheld closes what it listens on, and gunicorn's socket objects would close the numbers once more,
        # by then perhaps those of files that worker_exit has open.
        self._listen_fds = listen_fds = [os.dup(sock.fileno()) for sock in self.sockets]
        server.set_access_logger(None)
        server.set_error_logger(_ErrorLog(self.log))
        server.set_keepalive(self.cfg.keepalive)
        server.set_picoev_max_fd(open_files)
        server.set_max_content_length(BODY_MAX_BYTES)
        # All of it in memory: a read-only container has no temporary files, and meinheld does not check.
        server.set_client_body_buffer_size(BODY_MAX_BYTES)
        server.set_watchdog(self._watchdog)
        server.set_listen_socket(listen_fds)
        server.schedule_call(0, self._enter_loop, listen_fds[0])
        # Until the first heartbeat the file shows when it was made, on another clock: no timeout would fire.
        self.notify()
        shortcut: Shortcut | None = getattr(self.wsgi, "shortcut", None)
        if shortcut is not None:
            server.set_shortcut(shortcut.path, self._counted_shortcut(shortcut.answer), shortcut.names)
        server.run(self._counted(self.wsgi), 1)
        self._let_go()
        if self._exit_code:
            sys.exit(self._exit_code)

    def _enter_loop(self, listen_fd: int) -> None:
        # server.run() has put handlers of its own for these, which know no graceful_timeout.
        signal.signal(signal.SIGTERM, self.handle_exit)
        signal.signal(signal.SIGINT, self.handle_quit)
        self._epoll = _event_loop(listen_fd)
        waiting.use(waiting.EventLoop(server.running, server.suspend, server.resume, _soon, server.watch))

    def _counted(self, app: Application) -> Application:
        """Wrap ``app`` so that the worker stops after ``max_requests``, if any are set."""
        if self.cfg.max_requests <= 0:
            return app

        def count(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            self.nr += 1
            if self.nr == self.max_requests:
                self.log.info("Autorestarting worker after current request.")
                self._stop(self.cfg.graceful_timeout - EXIT_RESERVE_S)
            return app(environ, start_response)

        return count

    def _counted_shortcut(self, answer: Callable[..., Prepared | None]) -> Callable[..., Prepared | None]:
        """Likewise for what is answered through the shortcut; the last request is left to the application."""
        if self.cfg.max_requests <= 0:
            return answer

        def count(*values: str | None) -> Prepared | None:
            if self.nr + 1 >= self.max_requests:
                return None
            prepared = answer(*values)
            self.nr += prepared is not None
            return prepared

        return count

    def _watch(self) -> None:
        """Tell the master that we live. The loop calls this every second, and early when a signal wakes it."""
        self.notify()
        if self.ppid != os.getppid():
            self.log.info("Parent changed, shutting down: %s", self)
            self.alive = False
        now = time.monotonic()
        if not self.alive:  # Also set by gunicorn's reloader, from its thread.
            self._stop(self.cfg.graceful_timeout - EXIT_RESERVE_S)
            self._let_go()
        # Python runs its signal handlers only in Python code, which an idle loop calls once a second. Setting
        # the watchdog anew lets the loop call it after the very next event, be it a signal. Not twice within
        # half a second: a busy loop need not pay for it, the application is Python code enough.
        if now - self._watched_at > 0.5:
            server.set_watchdog(self._watchdog)
        self._watched_at = now

    def _stop(self, timeout_s: float) -> None:
        """Accept no more; answer what comes on open connections with ``Connection: close``, for ``timeout_s``."""
        self.alive = False
        deadline = time.monotonic() + timeout_s
        # Each call of server.stop() takes one off meinheld's count of connections: the master repeats SIGTERM
        # as it pleases, and each would cut one client off.
        if self._stop_deadline is not None and deadline >= self._stop_deadline - 1:
            return
        self._stop_deadline = deadline
        server.set_keepalive(0)
        server.stop(min(max(int(timeout_s), 1), STOP_TIMEOUT_MAX_S))
        server.set_watchdog(self._watchdog)

    def _let_go(self) -> None:
        """Give up what we listen on, once: open in a process that no longer accepts, it would take connections
        only to reset them at the end. Whoever waits there is accepted before, and connections that nobody uses are
        closed soon. Its numbers stay taken, for meinheld's timer and for gunicorn to close.

        Not while a request is answered: meinheld may be about to accept the next one, and dies of an error there.
        """
        fds, self._listen_fds = self._listen_fds, ()
        if fds:
            nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            # The kernel forgets a watched file only when its last descriptor goes, and the master has another: the
            # loop would spin on events of a file that it no longer knows.
            if self._epoll is not None:
                for fd in fds:
                    with suppress(FileNotFoundError):
                        self._epoll.unregister(fd)
            for sock in self.sockets:
                os.dup2(nothing, sock.fileno(), inheritable=False)
            for fd in fds:
                server.let_go(fd, nothing)
            os.close(nothing)
            server.close_idle(IDLE_TIMEOUT_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # Not here: this may be in the middle of a request, and who comes before its end is still to be accepted.
        self.alive = False
        server.set_watchdog(self._watchdog)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.cfg.worker_int(self)
        self._stop(0)
        # Out of a request (or of loading); but SystemExit in the watchdog would end the process on the spot,
        # past worker_exit.
        while frame is not None and frame.f_code is not MeinheldWorker._watch.__code__:
            frame = frame.f_back
        if frame is None:
            raise SystemExit(0)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        # The master's way to say that a request takes longer than ``timeout``. The error ends that request
        # with a 500 and a traceback in the log; a process that was stuck once is then replaced.
        self._exit_code = 1
        self.cfg.worker_abort(self)
        self._stop(0)
        raise SystemExit(1)


def _soon(call: Callable[[], object]) -> None:
    """Call something before the loop waits for its next events."""
    server.schedule_call(0, call)


def _event_loop(listen_fd: int) -> select.epoll | None:
    """Return the epoll instance that watches ``listen_fd``; None where there is none to be found (not Linux)."""
    watches = re.compile(rf"^tfd:\s*{listen_fd}\s", re.MULTILINE)
    for info in Path("/proc/self/fdinfo").glob("*"):
        with suppress(OSError):
            if watches.search(info.read_text()):
                return select.epoll.fromfd(os.dup(int(info.name)))
    return None


class _ErrorLog:
    """What meinheld calls with errors: those of the application, and those of its own sockets."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def error(self, kind: type[BaseException], ex: BaseException, traceback: TracebackType | None) -> None:
        # Without a traceback it comes from meinheld itself: a client that went away is no error of ours.
        if traceback is None and isinstance(ex, (ConnectionError, TimeoutError)):
            self._log.debug("Client went away: %s", ex)
        else:
            self._log.error("Error handling request", exc_info=(kind, ex, traceback))
