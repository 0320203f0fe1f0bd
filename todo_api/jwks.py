"""The public keys of an identity provider (RFC 7517), fetched in the background and never by a request."""

import logging
import threading
import time
from typing import Final

from jwt import PyJWK, PyJWKClient, PyJWTError

from todo_api.core.errors import KeysUnavailable

_REFRESH_S: Final = 300.0
# At most one fetch in this time, however many tokens name keys that do not exist.
_COOLDOWN_S: Final = 5.0
_FETCH_TIMEOUT_S: Final = 3.0
_WAIT_S: Final = 1.0

_logger = logging.getLogger(__name__)


class PublicKeys:
    """The keys at ``url``, by key id. Good keys go on being used while the provider is away."""

    def __init__(self, url: str, *, cooldown_s: float = _COOLDOWN_S, wait_s: float = _WAIT_S) -> None:
        # We keep the keys ourselves: the client's own cache fetches in the request, one request after the other.
        self._client = PyJWKClient(url, cache_jwk_set=False, timeout=_FETCH_TIMEOUT_S)
        self._cooldown_s = cooldown_s
        self._wait_s = wait_s
        self._keys: dict[str, PyJWK] | None = None
        self._changed = threading.Condition()
        self._attempts = 0
        self._next_attempt = 0.0
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin fetching in the background and return at once. Call it after the fork."""
        self._thread = threading.Thread(target=self._run, name="public-keys", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        self._stopping.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def get(self, key_id: str) -> PyJWK | None:
        """Return the key, or None when the provider has no such key.

        Waits about a second for the first fetch, and for a new one when the key is unknown and the last fetch is long
        enough ago. Raises KeysUnavailable when no keys were fetched yet.
        """
        keys = self._keys
        # APPSEC: anybody can name keys that do not exist. One such request waits in each cooldown, and none while the
        # provider is known to be away, so that nobody can hold up the thread that also serves the reads.
        if keys is None:
            keys = self._after_next_fetch() if self._attempts == 0 else None
        elif key_id not in keys and time.monotonic() >= self._next_attempt:
            keys = self._after_next_fetch()
        if keys is None:
            raise KeysUnavailable("no public keys were fetched yet")
        return keys.get(key_id)

    def _after_next_fetch(self) -> dict[str, PyJWK] | None:
        with self._changed:
            seen = self._attempts
            self._wanted.set()
            self._changed.wait_for(lambda: self._attempts != seen, self._wait_s)
            return self._keys

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.clear()
            self._next_attempt = time.monotonic() + self._cooldown_s
            fetched = self._fetch()
            with self._changed:
                self._keys = fetched or self._keys
                self._attempts += 1
                self._changed.notify_all()
            # Nobody can hurry the cooldown; after it, a request that misses a key can.
            if not self._stopping.wait(self._cooldown_s):
                self._wanted.wait(_REFRESH_S if fetched else 0)

    def _fetch(self) -> dict[str, PyJWK] | None:
        try:
            return {key.key_id: key for key in self._client.get_signing_keys() if key.key_id}
        # The answer is the provider's: besides connection errors it may hold anything that is not a key set.
        except (PyJWTError, OSError, ValueError, TypeError, AttributeError, RecursionError) as ex:
            _logger.warning("public keys not fetched: %s", ex, extra={"event": "keys.unavailable"})
            return None
