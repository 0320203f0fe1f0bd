"""Run a program as an ordinary user when we are root, without opening any folder to others."""

import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from scripts.stack.server import StackError

# Linux capability numbers (capabilities(7)): they let a program through folders that are closed to its user.
# The first only reads; the second, which containers have by default, also writes.
_CAPABILITIES = {"dac_read_search": 2, "dac_override": 1}


@dataclass(frozen=True, slots=True)
class RunAs:
    """The user a program runs as, and the arguments that go in front of its own."""

    user_id: int
    group_id: int
    prefix: list[str]

    def own(self, *paths: Path) -> None:
        """Give ``paths`` to the user; does nothing when that is ourselves."""
        if self.prefix:
            for path in paths:
                os.chown(path, self.user_id, self.group_id)


def run_as(data: Path, *programs: Path) -> RunAs:
    """Return how to run ``programs`` on ``data`` without root's powers; ourselves when we are not root.

    ``data`` must exist. Its owner is taken when that is not root, so that what an ordinary user made stays
    theirs; else ``nobody``. Raises StackError when this machine has no means to do it.
    """
    if os.geteuid() != 0:
        return RunAs(os.geteuid(), os.getegid(), [])
    user_id, group_id = data.stat().st_uid, data.stat().st_gid
    if user_id == 0:
        nobody = pwd.getpwnam("nobody")
        user_id, group_id = nobody.pw_uid, nobody.pw_gid
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackError(
            "PostgreSQL refuses to run as root, and setpriv (util-linux), which would run it as another user, "
            "is not installed; install util-linux or start as an ordinary user."
        )
    # "keep": a signal asked for at the death of the parent would be forgotten with the change of user.
    prefix = [setpriv, "--pdeathsig=keep", "--clear-groups", "--no-new-privs"]
    prefix += [f"--reuid={user_id}", f"--regid={group_id}"]
    closed = [path for path in (data, *programs) if not _can_reach(user_id, path.resolve())]
    if closed:
        capability = _held_capability(closed[0])
        prefix += [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"]
        # access(2), by which initdb looks for postgres, counts capabilities of an ordinary user only with this bit.
        prefix.append("--securebits=+no_setuid_fixup")
    return RunAs(user_id, group_id, prefix)


def _can_reach(user_id: int, path: Path) -> bool:
    """Say whether every folder above ``path`` lets that user through."""
    for folder in path.parents:
        status = folder.stat()
        needed = stat.S_IXUSR if status.st_uid == user_id else stat.S_IXOTH
        if not status.st_mode & needed:
            return False
    return True


def _held_capability(closed: Path) -> str:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        held = int(next(line.split()[1] for line in lines if line.startswith("CapEff:")), 16)
    except (OSError, StopIteration):
        held = 0
    for name, bit in _CAPABILITIES.items():
        if held >> bit & 1:
            return name
    raise StackError(
        f"PostgreSQL refuses to run as root, and another user cannot reach {closed}; move the checkout and its "
        "data (`--data-dir`) to a folder that everybody may enter, or start as an ordinary user."
    )
