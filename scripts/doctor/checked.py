"""What a check found."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

CONNECT_TIMEOUT_S: Final = 3.0
# Tokens and the times in todos are compared across machines: more than this shows.
_SKEW_MAX_S: Final = 1.0

Clock = Callable[[], float]
State = Literal["ok", "problem", "skipped"]


class Checked(NamedTuple):
    """``text`` says what is; of a problem, ``fix`` says what to do about it."""

    name: str
    state: State
    text: str
    fix: str = ""


def ok(name: str, text: str) -> Checked:
    return Checked(name, "ok", text)


def problem(name: str, text: str, fix: str) -> Checked:
    return Checked(name, "problem", text, fix)


def skipped(name: str, why: str) -> Checked:
    return Checked(name, "skipped", why)


def check_clock(name: str, server: str, ask: Callable[[], float], clock: Clock) -> Iterator[Checked]:
    """Compare the server's time, in seconds since 1970, with ours; the time that asking took is not counted."""
    began = clock()
    theirs = ask()
    ended = clock()
    skew_s = theirs - (began + ended) / 2
    if abs(skew_s) - (ended - began) / 2 <= _SKEW_MAX_S:
        yield ok(name, f"the clock of {server} agrees with ours")
        return
    yield problem(
        name,
        f"the clock of {server} is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} ours: tokens end, "
        "and todos are dated, at another time than elsewhere",
        "Let NTP set the clocks of both machines (chronyd or systemd-timesyncd; `timedatectl` shows whether it does).",
    )


def why_not_reachable(host: str, port: int) -> str | None:
    """Say why no TCP connection to this address can be made within 3 s, or None when one can."""
    try:
        with socket.create_connection((host, port), CONNECT_TIMEOUT_S):
            return None
    except OSError as ex:
        return ex.strerror or str(ex) or type(ex).__name__


def speaks_tls(host: str, port: int) -> bool:
    """Say whether a TLS handshake gets anywhere there, within 3 s. Nothing is sent, so nothing is verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), CONNECT_TIMEOUT_S) as connection,
            context.wrap_socket(connection),
        ):
            return True
    except OSError:
        return False


def is_local(host: str | None) -> bool:
    """Say whether this host is certainly this machine."""
    return host in (None, "", "localhost", "::1") or str(host).startswith("127.")


system_clock: Final[Clock] = time.time
