"""Memory that an instance's processes share: made by gunicorn's master, with a slot to count in for each process.

A slot's first 8 bytes are the process id of its owner, which writes it there, and 0 when it has none; what else is
in it is the application's business. The memory is anonymous: it ends with the processes, and no file outlives them.
"""

import mmap
from typing import Any, Final

# Enough for a few hundred series; what nobody writes to is never real memory.
_SLOT_BYTES: Final = 262_144
# What is known of the owner of a slot.
_NOBODY: Final = 0
_BOOTING: Final = 1
_SERVING: Final = 2
# While workers are replaced (a reload, SIGTTIN) there are more of them than are configured.
_SPARE_SLOTS: Final = 16


class InstanceMemory:
    """Hands out slots to workers before they are forked. Lives in the master; its workers inherit the memory."""

    def __init__(self, processes: int) -> None:
        self.slots = 2 * processes + _SPARE_SLOTS
        self._memory = mmap.mmap(-1, self.slots * _SLOT_BYTES)
        self.view = memoryview(self._memory)
        self._owners: dict[int, Any] = {}
        self._states = mmap.mmap(-1, self.slots)

    @property
    def is_booting(self) -> bool:
        """Whether a worker that was forked does not serve yet."""
        return _BOOTING in self._states[:]

    def serves(self, slot: int) -> None:
        """Note, in the worker, that the owner of this slot is about to serve."""
        self._states[slot] = _SERVING

    def take(self, worker: Any) -> int | None:
        """Return the slot for a worker that is about to be forked; the lowest, so that few are ever used.

        None when all are taken.
        """
        free = next((slot for slot in range(self.slots) if slot not in self._owners), None)
        if free is not None:
            self._owners[free] = worker
            self._states[free] = _BOOTING
        return free

    def release(self, worker: Any) -> None:
        """Note that a worker has died: what it counted is kept for the next one, its gauges no longer count."""
        for slot, owner in list(self._owners.items()):
            if owner is worker:
                del self._owners[slot]
                self._states[slot] = _NOBODY
                self.view[slot * _SLOT_BYTES : slot * _SLOT_BYTES + 8] = bytes(8)
