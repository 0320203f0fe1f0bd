#!/usr/bin/env python3
"""Install meinheld with three corrections, into the environment of the Python that runs this.

    python scripts/meinheld/install.py [constraints.txt]

meinheld has had no release since 2020. This takes the last one (1.0.2), corrects its source, and installs it as
1.0.2+todo.2. It needs a C compiler and Python's headers, and uses nothing but the standard library and pip.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

RELEASE: Final = "meinheld==1.0.2"
VERSION: Final = "1.0.2+todo.2"


class Correction(NamedTuple):
    file: str
    old: str
    new: str


CORRECTIONS: Final = (
    # Each connection is watched with a flag that forbids the kernel to change the watch, so that meinheld asks in
    # vain twice after every answer (EPOLL_CTL_MOD, EINVAL; EPOLL_CTL_ADD, EEXIST): 1.2 us of 21. Worse, one that
    # waits to become writable waits for ever. What the flag was for, waking one process for a new connection,
    # costs the others an accept() that finds nothing.
    Correction("meinheld/server/picoev_epoll.c", "ev.events |= EPOLLEXCLUSIVE;", ""),
    # APPSEC: fields behind a chunked body (trailers) read through a null pointer: anybody could end a process.
    # They are refused with 400.
    Correction(
        "meinheld/server/http_request_parser.c",
        """    if (add_header(req) < 0) {
      return -1;
    }
  }
  if (!check_field_name""",
        """    if (req->field == NULL) {
      req->bad_request_code = 400;
      return -1;
    }
    if (add_header(req) < 0) {
      return -1;
    }
  }
  if (!check_field_name""",
    ),
    # APPSEC: the path is percent-decoded twice, so that a proxy in front sees another path (/%256detrics) than the API.
    Correction("meinheld/server/http_request_parser.c", "  slen = urldecode(s0, slen);\n", ""),
    # So that the API can tell, at its start, which of the two it has.
    Correction("setup.py", 'version="1.0.2"', f'version="{VERSION}"'),
)


def corrected(source: str, correction: Correction) -> str:
    """Return the source with the correction made. Raises ValueError when there is nothing to correct."""
    if correction.old not in source:
        raise ValueError(f"{correction.file} is not that of {RELEASE}")
    return source.replace(correction.old, correction.new)


def main(constraints: str | None) -> None:
    # Without greenlets, which it does not need here and which do not build.
    environment = os.environ | {"MEINHELD_NOGREEN": "1"}
    pip = [sys.executable, "-m", "pip"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        download = ["download", "-q", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, *download, "-d", name, RELEASE], check=True, env=environment)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
        (source,) = (path for path in folder.iterdir() if path.is_dir())
        for correction in CORRECTIONS:
            file = source / correction.file
            file.write_text(corrected(file.read_text(), correction))
        limits = ["-c", constraints] if constraints else []
        subprocess.run([*pip, "install", "-q", *limits, str(source)], check=True, env=environment)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
