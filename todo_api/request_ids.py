"""Request ids: one text that a client, a proxy and our log share for one request."""

import re
import secrets
from typing import Final

from falcon import Request, Response

# APPSEC: it is written to logs and sent back; nothing else than these characters gets there.
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id(req: Request) -> str:
    """Return the id of this request: the one in ``X-Request-Id`` if it is well formed, else a new one."""
    known: str | None = req.context.get("request_id")
    if known is None:
        known = id_of(req.env.get("HTTP_X_REQUEST_ID"))
        req.context["request_id"] = known
    return known


def id_of(sent: str | None) -> str:
    """Return ``sent``, the value of X-Request-Id, if it is well formed, else a new id."""
    return sent if sent is not None and _WELL_FORMED.fullmatch(sent) else secrets.token_hex(16)


class RequestIdHeader:
    """Sends the id back, except with answers that caches hand to others."""

    def process_response(self, req: Request, resp: Response, _resource: object, _succeeded: bool) -> None:
        if not (resp.get_header("Cache-Control") or "").startswith("public"):
            resp.set_header("X-Request-Id", request_id(req))
