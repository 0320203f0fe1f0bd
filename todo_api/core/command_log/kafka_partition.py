"""Which partition a key goes to on Kafka: as all its clients decide by default (murmur2), so that they may mix."""

import struct
from typing import Final

_SEED: Final = 0x9747B28C
_FACTOR: Final = 0x5BD1E995
_32_BITS: Final = 0xFFFFFFFF
# As the last word of a key, the two halves of four hexadecimal digits.
_HEX: Final = tuple(int.from_bytes(b"%02x" % byte, "little") for byte in range(256))


def partition_of(key: bytes, partitions: int) -> int:
    """Return the number of the partition, from 0, of so many."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Return the hash that Kafka's clients share (org.apache.kafka.common.utils.Utils.murmur2), unsigned.

    PERF: kafka-python's goes byte by byte, and asks for the partitions twice on the way to it: 19 us a record of 87.
    """
    words, rest = divmod(len(data), 4)
    value = _SEED ^ len(data)
    for word in struct.unpack_from(f"<{words}I", data):
        word = word * _FACTOR & _32_BITS
        word = (word ^ word >> 24) * _FACTOR & _32_BITS
        value = value * _FACTOR & _32_BITS ^ word
    if rest:
        value = (value ^ int.from_bytes(data[-rest:], "little")) * _FACTOR & _32_BITS
    value = (value ^ value >> 13) * _FACTOR & _32_BITS
    return value ^ value >> 15


def tail_for(front: bytes, tail: int, partition: int, partitions: int, tries: int) -> int:
    """Return the first number from ``tail`` on (16 bits, around the end) that puts a key into ``partition``.

    The key is ``front``, of whole words of four bytes, and the number as four hexadecimal digits. After so many
    ``tries`` it is any number: each costs half a microsecond, and it takes as many as there are partitions on average.
    """
    value = _SEED ^ len(front) + 4
    for word in struct.unpack(f"<{len(front) // 4}I", front):
        word = word * _FACTOR & _32_BITS
        word = (word ^ word >> 24) * _FACTOR & _32_BITS
        value = value * _FACTOR & _32_BITS ^ word
    value = value * _FACTOR & _32_BITS
    for _ in range(tries):
        word = (_HEX[tail >> 8] | _HEX[tail & 0xFF] << 16) * _FACTOR & _32_BITS
        word = (word ^ word >> 24) * _FACTOR & _32_BITS ^ value
        word = (word ^ word >> 13) * _FACTOR & _32_BITS
        if ((word ^ word >> 15) & 0x7FFFFFFF) % partitions == partition:
            break
        tail = tail + 1 & 0xFFFF
    return tail
