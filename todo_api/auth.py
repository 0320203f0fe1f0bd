"""Who is asking: bearer tokens (RFC 6750, RFC 7519), verified and remembered for a short while."""

import math
import re
import threading
import time
from typing import Any, Final, Protocol

import jwt
from jwt import PyJWK

from todo_api.core.errors import TodoError
from todo_api.core.todo import user_id_problem

_HEADER_MAX_CHARS: Final = 8192
# A key that is withdrawn, or a clock that is set, takes effect within this time.
_REMEMBER_S: Final = 60.0
_REMEMBERED_MAX: Final = 4096
# APPSEC: the compact form and nothing else; no padding, so that a token has one spelling.
_BEARER: Final = re.compile(r"bearer +([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+) *", re.IGNORECASE)


class Unauthenticated(TodoError):
    """The request carries no token, or one that we do not accept. The message is for the client."""

    def __init__(self, reason: str, *, with_token: bool = True) -> None:
        super().__init__(reason)
        self._with_token = with_token

    @property
    def challenge(self) -> str:
        """The value of ``WWW-Authenticate``; without a token it names no error (RFC 6750 section 3.1)."""
        challenge = 'Bearer realm="todo-api"'
        if self._with_token:
            challenge += f', error="invalid_token", error_description="{self}"'
        return challenge


class Keys(Protocol):
    """Finds the key a token names (``jwks.PublicKeys``)."""

    def get(self, key_id: str) -> PyJWK | None:
        """Return the key, or None when there is no such key. Bounded. Raises KeysUnavailable."""


class Verifier(Protocol):
    """Tells who is asking. What resources know of ``TokenVerifier``."""

    def verify(self, authorization: str | None) -> str:
        """Return the user id. Raises Unauthenticated or KeysUnavailable."""

    def remembered(self, authorization: str | None) -> str | None:
        """Return the user id if this value was verified a short while ago, else None. Never blocks."""


class TokenVerifier:
    """Verifies tokens with ``secret``, or with public ``keys`` when there is no secret.

    ``audience`` and ``issuer`` are required of every token when they are set.
    """

    def __init__(
        self,
        *,
        algorithms: tuple[str, ...],
        secret: str | None = None,
        keys: Keys | None = None,
        audience: str | None = None,
        issuer: str | None = None,
    ) -> None:
        if (secret is None) == (keys is None):
            raise ValueError("either a secret or keys")
        self._algorithms = list(algorithms)
        self._secret = secret
        self._keys = keys
        self._audience = audience
        self._issuer = issuer
        # PyJWT accepts an `aud` only when told which; without JWT_AUDIENCE it is not ours to judge.
        self._options: Any = {
            "require": ["exp", "sub"],
            "verify_aud": audience is not None,
            "enforce_minimum_key_length": True,
        }
        # PERF: verifying costs 28 us, looking it up 0.1 us. Keyed by the whole token, only successes, bounded.
        self._remembered: dict[str, tuple[str, float]] = {}
        self._forgetting = threading.Lock()

    def verify(self, authorization: str | None) -> str:
        """Return the user id in the value of an ``Authorization`` header.

        Raises Unauthenticated, or KeysUnavailable when it cannot be told. With a secret it never blocks; with public
        keys about a second at most.
        """
        if authorization is None:
            raise Unauthenticated("a bearer token is required", with_token=False)
        known = self.remembered(authorization)
        if known is not None:
            return known
        user_id, expires_at = self._verified(_token(authorization))
        self._remember(authorization, user_id, min(expires_at, time.time() + _REMEMBER_S))
        return user_id

    def remembered(self, authorization: str | None) -> str | None:
        """Return the user id if this value was verified a short while ago, else None. Never blocks."""
        found = self._remembered.get(authorization or "")
        # APPSEC: never beyond its `exp`.
        return found[0] if found is not None and time.time() < found[1] else None

    def _verified(self, token: str) -> tuple[str, float]:
        try:
            claims = jwt.decode(
                token,
                self._key(token),
                algorithms=self._algorithms,
                options=self._options,
                audience=self._audience,
                issuer=self._issuer,
            )
            return _user_id(claims["sub"]), _time(claims["exp"])
        except jwt.ExpiredSignatureError as ex:
            raise Unauthenticated("the token has expired") from ex
        # APPSEC: the rest is one answer, so that nobody can learn which part of a forged token was right. Claims of
        # odd types make PyJWT raise more than its own errors.
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as ex:
            raise Unauthenticated("the token is not valid") from ex

    def _key(self, token: str) -> str | PyJWK:
        if self._keys is None:
            assert self._secret is not None
            return self._secret
        key_id = jwt.get_unverified_header(token).get("kid")
        key = self._keys.get(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise jwt.InvalidKeyError("no such key")
        return key

    def _remember(self, authorization: str, user_id: str, good_until: float) -> None:
        with self._forgetting:
            while len(self._remembered) >= _REMEMBERED_MAX:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[authorization] = (user_id, good_until)


def _token(authorization: str) -> str:
    if len(authorization) > _HEADER_MAX_CHARS:
        raise Unauthenticated("the token is too long")
    match = _BEARER.fullmatch(authorization)
    if match is None:
        raise Unauthenticated("the Authorization header must be: Bearer, a space, a token")
    return match[1]


def _user_id(subject: object) -> str:
    if not isinstance(subject, str) or user_id_problem(subject) is not None:
        raise ValueError("sub")
    return subject


def _time(expires_at: object) -> int:
    # PyJWT takes a numeric string; RFC 7519 wants a number.
    if (
        isinstance(expires_at, bool)
        or not isinstance(expires_at, int | float)
        or not math.isfinite(expires_at)
    ):
        raise ValueError("exp")
    return math.floor(expires_at)
