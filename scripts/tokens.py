"""Tokens for trying the API, signed with the secret that the API verifies them with."""

from datetime import UTC, datetime, timedelta

import jwt

from config.settings import Settings, SettingsError, token_problems


def sign_token(settings: Settings, user: str, lifetime: timedelta) -> str:
    """Return a token for ``user`` that an API with these settings accepts.

    Raises SettingsError when there is no usable secret, or when the keys are somebody else's (JWT_JWKS_URL).
    """
    if settings.jwt_jwks_url is not None:
        raise SettingsError("settings:\n  - JWT_JWKS_URL is set: tokens come from that identity provider")
    if problems := token_problems(settings):
        raise SettingsError("settings:\n" + "\n".join(f"  - {problem}" for problem in problems))
    now = datetime.now(UTC)
    claims: dict[str, object] = {"sub": user, "iat": now, "exp": now + lifetime}
    if settings.jwt_audience is not None:
        claims["aud"] = settings.jwt_audience
    if settings.jwt_issuer is not None:
        claims["iss"] = settings.jwt_issuer
    return jwt.encode(claims, settings.jwt_secret or "", algorithm=settings.jwt_algorithms[0])
