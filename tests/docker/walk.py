"""The build stage of docker/Dockerfile, carried out in a folder: there may be no container engine where tests run.

It does what the lines say, with ``/opt/todo`` and ``/build`` below that folder. What it leaves out: the base image
(this Python instead), apt-get, compiling every module (each is when it is first imported), and the stages after the
first.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
MOVED = ("/opt/todo", "/build")


class Instruction(NamedTuple):
    name: str
    text: str


def stages(text: str) -> list[list[Instruction]]:
    """Return the instructions of each stage, continued lines joined, comments left out."""
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    found: list[list[Instruction]] = [[]]
    for line in filter(None, map(str.strip, lines)):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append(Instruction(name, rest.strip()))
    return found[1:]


def context() -> list[Path]:
    """Return the files that ``COPY . .`` would take: what git has or would add, less what the ignore file says."""
    ignore = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    kept = tuple(line[1:] for line in ignore if line.startswith("!"))
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    return [Path(name) for name in listed if name.split("/")[0] in kept and (ROOT / name).exists()]


def build(folder: Path) -> Path:
    """Carry out the first stage in ``folder`` and return the folder of the environment it makes."""
    for moved in MOVED:
        (folder / moved.lstrip("/")).mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PIP_NO_COMPILE": "1"}
    for instruction in stages(DOCKERFILE.read_text())[0]:
        match instruction.name:
            case "ENV":
                environment |= dict(word.split("=", 1) for word in shlex.split(instruction.text))
            case "COPY":
                source, target = instruction.text.split()
                _copy(source, folder / "build" / target)
            case "RUN":
                command = re.sub(r"--mount=\S+ ", "", instruction.text)
                if not command.startswith("apt-get") and "compileall" not in command:
                    _run(command, folder, environment)
    return folder / "opt" / "todo"


def _copy(source: str, target: Path) -> None:
    chosen = [name for name in context() if source == "." or name.is_relative_to(source)]
    assert chosen, f"COPY {source} finds nothing"
    for name in chosen:
        to = target / name.relative_to(source) if (ROOT / source).is_dir() else target / name.name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to)


def _run(command: str, folder: Path, environment: dict[str, str]) -> None:
    for moved in MOVED:
        command = re.sub(rf"{moved}(?=/|\s|$)", f"{folder}{moved}", command)
    command = re.sub(r"^python ", f"{sys.executable} ", command)
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=folder / "build", env=environment, check=False,
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
