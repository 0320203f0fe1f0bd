"""What librdkafka leaves behind in its group when the broker was away for longer than its session: a member.

It forgets who it was, and joins as somebody new. The broker, back again, remembers the old member and waits for it
until its session is over, ten seconds more in which nobody of the group reads. So the old one is made to leave.
"""

import logging
import threading
from collections.abc import Sequence
from typing import Any, Final

from kafka.admin import MemberToRemove
from kafka.errors import KafkaError, NoError

from todo_api.core.command_log.kafka_security import KafkaSecurity
from todo_api.core.command_log.topics import connect_admin
from todo_api.core.errors import LogUnavailable

logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 2.0


class LeftBehind:
    """The membership of one consumer. ``joined`` and ``lost`` are callbacks of librdkafka's, run in its ``poll``."""

    def __init__(self, brokers: Sequence[str], group: str, security: KafkaSecurity) -> None:
        self._brokers = brokers
        self._security = security
        self._group = group
        self._member = ""
        self._left: str | None = None

    def joined(self, consumer: Any, _partitions: Sequence[object]) -> None:
        self._member = consumer.memberid() or ""
        self._left = None

    def lost(self, _consumer: Any, _partitions: Sequence[object]) -> None:
        self._left = self._member or None

    def look(self, consumer: Any) -> None:
        """Let the member that was left behind leave, once, as soon as there is a new one. Does not block."""
        left = self._left
        # With a new member id the coordinator is there again, and knows its members.
        if left is None or (consumer.memberid() or left) == left:
            return
        self._left = None
        threading.Thread(target=self._leave, args=(left,), name="log-left-behind", daemon=True).start()

    def _leave(self, member: str) -> None:
        try:
            admin = connect_admin(self._brokers, _TIMEOUT_S, self._security)
            try:
                left = admin.remove_group_members(self._group, [MemberToRemove(member)])
            finally:
                admin.close()
        # Then the broker finds out by itself, a session later.
        except (LogUnavailable, KafkaError) as ex:
            logger.info("%s: the old member %s could not leave: %s", self._group, member, ex)
            return
        if left.get(member) is NoError:
            logger.info("%s: the old member %s has left", self._group, member)
