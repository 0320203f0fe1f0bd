"""The data folder: one holder at a time, ports that stay, secrets that only the owner reads."""

import socket
import stat

import pytest

from scripts.stack.folder import held, kept_ports, publish_environment, published_environment
from scripts.stack.server import StackError


def test_ports_stay_the_same_from_one_start_to_the_next(tmp_path):
    first = kept_ports(tmp_path, "postgres", "valkey")
    assert len(set(first.values())) == 2
    assert kept_ports(tmp_path, "postgres", "valkey") == first


def test_a_port_that_somebody_else_took_is_replaced_and_the_others_stay(tmp_path):
    first = kept_ports(tmp_path, "postgres", "valkey")
    with socket.create_server(("127.0.0.1", first["postgres"])):
        second = kept_ports(tmp_path, "postgres", "valkey")
    assert second["postgres"] != first["postgres"]
    assert second["valkey"] == first["valkey"]


def test_a_damaged_list_of_ports_is_made_anew(tmp_path):
    (tmp_path / "ports.json").write_text("{")
    assert kept_ports(tmp_path, "postgres")["postgres"] > 0


def test_only_one_holds_a_folder(tmp_path):
    announced: list[str] = []
    with (
        held(tmp_path / "new", "http://first", announced.append),
        pytest.raises(StackError, match=r"already running .*http://first"),
    ):
        held(tmp_path / "new", "http://second", announced.append).__enter__()
    with held(tmp_path / "new", "http://third", announced.append):
        assert not announced


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="cannot be used as data folder"):
        held(tmp_path / "file" / "folder", "http://first", print).__enter__()


def test_how_a_stack_is_reached_can_be_read_by_its_owner_alone(tmp_path):
    assert published_environment(tmp_path) == {}
    publish_environment(tmp_path, {"JWT_SECRET": "s"})
    assert published_environment(tmp_path) == {"JWT_SECRET": "s"}
    assert stat.S_IMODE((tmp_path / "environment.json").stat().st_mode) == 0o600
