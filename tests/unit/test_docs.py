"""The documentation is true: its tables, links, file names and commands agree with the code."""

import re
import shutil
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import click
import pytest
from dotenv import dotenv_values
from falcon.inspect import inspect_routes

from config.settings import Settings, SettingsError, load_settings
from scripts.cli import VERBS
from tests.support.api import Api

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FOLDERS = ("config", "docs", "scripts", "tests", "todo_api", "todo_worker")
FILE = re.compile(rf"({'|'.join(FOLDERS)})/[\w./-]*|[\w.-]+\.(cfg|md|py|sh|sql|svg|toml|txt)")
# Named as a form, not as a file.
FORMS = {"NNNN.name.sql"}
# What a reader has without us. Everything else must come with the project.
SYSTEM_COMMANDS = {"chmod", "curl", "make", "pip", "python3"}
SHELL_WORDS = {".", "cd", "echo", "export"}

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(document, language):
    return [body for name, body in FENCE.findall(document.read_text()) if name == language]


def prose(document):
    """The text without its fenced blocks."""
    return FENCE.sub("", document.read_text())


def table(heading):
    """The rows of the first table under a heading of the README, without the header."""
    section = README.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert lines, f"no table under {heading}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands(document):
    """The command lines of a document: those of its bash blocks, and the code in its text that begins with one."""
    lines = [line for body in blocks(document, "bash") for line in body.splitlines()]
    lines += [
        code for code in CODE.findall(prose(document)) if code.startswith(("make ", "todo ", "scripts/"))
    ]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def words(line):
    """The words of a command line, without the variables set in front of it."""
    return re.sub(r"^(\w+=\S* )+", "", line.strip()).split()


def anchors(document):
    """The anchors that the headings of a document make, as GitHub names them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_settings_table_says_what_the_settings_say():
    with pytest.raises(SettingsError) as missing:
        load_settings("api", {})

    def default(spec):
        name, value = spec.metadata["env"], spec.metadata["default"]
        return (
            f"`{value}`" if value else "required" if f"{name} is not set" in str(missing.value) else "not set"
        )

    expected = [
        [f"`{spec.metadata['env']}`", spec.metadata["doc"], default(spec)] for spec in fields(Settings)
    ]
    assert table("Settings") == expected


def test_the_api_table_names_every_route_and_no_other():
    documented = set()
    for call, _, _ in table("API"):
        method, path = call.strip("`").split(" ")
        documented.add((method, re.sub(r"{[\w:]+}", "{}", urlsplit(path).path)))
    served = {
        (method.method, re.sub(r"{[\w:]+}", "{}", route.path))
        for route in inspect_routes(Api().app)
        for method in route.methods
        if not method.internal
    }
    gets = {path for method, path in served if method == "GET"}
    assert served - documented == {("HEAD", path) for path in gets}, "HEAD works wherever GET does"
    assert documented <= served


def test_the_table_of_verbs_names_every_verb_and_no_other():
    assert [row[0].strip("`") for row in table("The `todo` command")] == [f"todo {verb}" for verb in VERBS]


def test_the_options_in_the_table_of_verbs_are_those_of_the_verbs():
    for name, does in table("The `todo` command"):
        verb = name.strip("`").removeprefix("todo ")
        offered = options(getattr(import_module(f"scripts.verbs.{verb}"), verb))
        assert set(re.findall(r"`(--[\w-]+)`", does)) <= offered, verb


def options(command):
    return {option for parameter in command.params for option in parameter.opts} | {"--help"}


@each_document
def test_every_relative_link_leads_somewhere(document):
    for link in LINK.findall(prose(document)):
        target = urlsplit(link)
        if target.scheme:
            continue
        file = (document.parent / target.path).resolve() if target.path else document
        assert file.exists(), link
        assert not target.fragment or target.fragment in anchors(file), link


@each_document
def test_every_file_that_is_named_exists(document):
    for code in CODE.findall(prose(document)):
        if FILE.fullmatch(code) and code not in FORMS:
            # A bare name may be that of a file in any of our folders.
            found = (ROOT / code).exists() or any(any((ROOT / folder).rglob(code)) for folder in FOLDERS)
            assert found, code


@each_document
def test_every_bash_block_is_bash(document):
    bash = shutil.which("bash")
    assert bash is not None
    for body in blocks(document, "bash"):
        checked = subprocess.run([bash, "-n"], input=body, text=True, capture_output=True)
        assert checked.returncode == 0, f"{checked.stderr}\n{body}"


@each_document
def test_every_command_in_a_bash_block_is_there(document):
    for line in filter(str.strip, "".join(blocks(document, "bash")).splitlines()):
        first = words(line)[0]
        if "/" in first:
            assert (ROOT / first).exists(), line
        elif first not in SYSTEM_COMMANDS | SHELL_WORDS:
            # In the virtual environment: ours, or that of a package we need.
            assert Path(sys.executable).with_name(first).exists(), line


@each_document
def test_every_make_target_exists(document):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(document):
        if words(line)[0] == "make" and len(words(line)) > 1:
            assert words(line)[1] in targets, line


@each_document
def test_every_todo_command_and_its_options_exist(document):
    invocations = [
        found for line in commands(document) for found in re.findall(r"(?:^|[ /(])todo ([^)\"`]+)", line)
    ]
    # make run ARGS="..." hands them to `todo up`, as does scripts/seed.sh to `todo seed`.
    invocations += [
        f"up {found}" for line in commands(document) for found in re.findall(r'run ARGS="(.*?)"', line)
    ]
    for invocation in invocations:
        verb, *rest = invocation.split()
        if verb == "VERB":
            continue
        assert verb in VERBS, invocation
        command = getattr(import_module(f"scripts.verbs.{verb}"), verb)
        if isinstance(command, click.Group) and rest:
            command = command.commands[rest.pop(0)]
        assert {word for word in rest if word.startswith("--")} <= options(command), invocation


@each_document
def test_every_python_module_that_is_to_be_run_exists(document):
    for module in re.findall(r"python3? -m (\w+)", document.read_text()):
        assert find_spec(module) is not None, module


@each_document
def test_every_python_block_compiles(document):
    for body in blocks(document, "python"):
        compile(body, str(document), "exec")


def test_the_env_file_of_the_readme_is_enough_with_a_secret():
    (body,) = blocks(README, "dotenv")
    env = {name: value or "" for name, value in dotenv_values(stream=StringIO(body)).items()}
    load_settings("worker", env)
    assert len(load_settings("api", env | {"JWT_SECRET": "0123456789abcdef" * 2}).kafka_brokers) == 3


def test_every_decision_is_linked_from_the_architecture():
    linked = set(LINK.findall((ROOT / "docs" / "architecture.md").read_text()))
    assert {f"adr/{file.name}" for file in (ROOT / "docs" / "adr").iterdir()} <= linked


def test_the_picture_is_well_formed_and_described():
    picture = ElementTree.parse(ROOT / "docs" / "architecture.svg").getroot()  # noqa: S314 our own file
    namespace = "{http://www.w3.org/2000/svg}"
    assert picture.tag == f"{namespace}svg"
    assert picture.findtext(f"{namespace}title")
    assert picture.findtext(f"{namespace}desc")
