"""Bodies for meinheld's shortcut: long ones in files that nobody can change, for as long as they are held."""

import os
import resource

import pytest

from todo_api.shortcut import FILE_MIN_BYTES, BodyFile, held_bytes, prepare

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux has files in memory")


def test_a_long_body_is_in_a_file_that_nobody_can_change():
    body = os.urandom(FILE_MIN_BYTES)
    head, length, file = prepare("200 OK\r\nA: b", body)
    assert (head, length) == (b"200 OK\r\nA: b", b"Content-Length: 131072\r\n")
    assert isinstance(file, BodyFile)
    assert len(file) == len(body)
    assert os.pread(file.fileno(), len(body) + 1, 0) == body
    for change in (lambda: os.pwrite(file.fileno(), b"x", 0), lambda: os.truncate(file.fileno(), 1)):
        with pytest.raises(PermissionError):
            change()


def test_the_file_is_closed_when_nobody_holds_it():
    file = BodyFile(b"a")
    fd = file.fileno()
    assert "memfd:body" in os.readlink(f"/proc/self/fd/{fd}")
    del file
    with pytest.raises(OSError, match=r"\[Errno"):
        os.fstat(fd)


def test_without_descriptors_the_bytes_are_sent():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        prepared = prepare("200 OK", bytes(FILE_MIN_BYTES))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert prepared[2] == bytes(FILE_MIN_BYTES)


def test_short_bodies_stay_bytes_and_count_once():
    assert prepare("200 OK", b"a")[2] == b"a"
    assert prepare("304 Not Modified", None) == (b"304 Not Modified", b"", b"")
    assert held_bytes(b"a") == 1
    assert held_bytes(bytes(FILE_MIN_BYTES)) == 2 * FILE_MIN_BYTES
