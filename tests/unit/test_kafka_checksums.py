import crc32c
from kafka.record.util import calc_crc32c, crc32c_py


def test_kafka_python_checks_records_with_compiled_code() -> None:
    """Without the package it goes on in Python, without a word and at a multiple of the CPU."""
    assert calc_crc32c.__defaults__ == (crc32c.crc32c,)
    record = bytes(range(256)) * 3
    assert calc_crc32c(memoryview(record)) == crc32c_py(record)
