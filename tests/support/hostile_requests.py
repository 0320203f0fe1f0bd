"""Requests that are almost HTTP, for whatever is in front: each may be answered once at most, and harms nobody."""

from typing import Final

HOST: Final = b"Host: a\r\nConnection: close\r\n"
GET: Final = b"GET /todos?limit=1 HTTP/1.1\r\n"
BODY: Final = b'{"title":"raw"}'


def post(token: str, headers: bytes, body: bytes = BODY) -> bytes:
    """Return a POST of a todo with these header lines."""
    return _write(b"POST /todos", token, headers, body)


def patch(token: str, todo_id: str, body: bytes) -> bytes:
    """Return a PATCH of a todo."""
    return _write(f"PATCH /todos/{todo_id}".encode(), token, b"Content-Length: %d" % len(body), body)


def _write(what: bytes, token: str, headers: bytes, body: bytes) -> bytes:
    head = what + b" HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
    return head + b"Authorization: Bearer " + token.encode() + b"\r\n" + headers + b"\r\n\r\n" + body


def statuses(received: bytes) -> list[int]:
    """Return the status of each answer in ``received``."""
    return [int(line.split(b" ")[1]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.")]


CHUNKED: Final = b"f\r\n" + BODY + b"\r\n0\r\n\r\n"

# Each: what is sent behind the fixed part of a POST, and the body.
FRAMINGS: Final = {
    "length and chunked": (b"Content-Length: 3\r\nTransfer-Encoding: chunked", CHUNKED),
    "two lengths": (b"Content-Length: 15\r\nContent-Length: 3", BODY),
    "two equal lengths": (b"Content-Length: 15\r\nContent-Length: 15", BODY),
    "a list of lengths": (b"Content-Length: 15, 15", BODY),
    "an empty length": (b"Content-Length: ", BODY),
    "a signed length": (b"Content-Length: +15", BODY),
    "a length beyond 64 bits": (b"Content-Length: 99999999999999999999999", BODY),
    "a length in hexadecimal": (b"Content-Length: 0xf", BODY),
    "chunked in capitals": (b"Transfer-Encoding: CHUNKED", CHUNKED),
    "chunked twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", CHUNKED),
    "a coding in front": (b"Transfer-Encoding: gzip, chunked", CHUNKED),
    "a chunk beyond 64 bits": (b"Transfer-Encoding: chunked", b"FFFFFFFFFFFFFFFFF\r\n" + CHUNKED),
    "a negative chunk": (b"Transfer-Encoding: chunked", b"-1\r\n" + CHUNKED),
    "an underscore for the dash in a length": (b"Content_Length: 3\r\nContent-Length: 15", BODY),
    "an underscore for the dash in the coding": (b"Transfer_Encoding: chunked\r\nContent-Length: 15", BODY),
    "a length with a space before its colon": (b"Content-Length : 15", BODY),
    "a coding on a folded line": (b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 15", BODY),
    "a coding that only looks like chunked": (b"Transfer-Encoding: xchunked\r\nContent-Length: 15", BODY),
    "a coding behind a vertical tab": (b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 15", BODY),
    "lines that end with a line feed": (b"X: a\nContent-Length: 15", BODY),
    "chunks that end with a line feed": (b"Transfer-Encoding: chunked", CHUNKED.replace(b"\r\n", b"\n")),
    "chunks with extensions": (b"Transfer-Encoding: chunked", b'f;a=b;c="d"\r\n' + CHUNKED[3:]),
    "chunk lengths with zeros in front": (b"Transfer-Encoding: chunked", b"0000" + CHUNKED),
    "chunk lengths with white space": (b"Transfer-Encoding: chunked", b"f \t\r\n" + CHUNKED[3:]),
    "chunk lengths in another base": (b"Transfer-Encoding: chunked", b"0x" + CHUNKED),
    "a chunk longer than it says": (b"Transfer-Encoding: chunked", b"3" + CHUNKED[1:]),
    "a request in the body": (b"Content-Length: 15", BODY + b"DELETE /todos HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a compressed body": (b"Content-Encoding: gzip\r\nContent-Length: 15", BODY),
    "an expectation nobody knows": (b"Expect: magic\r\nContent-Length: 15", BODY),
}

HEADS: Final = {
    "a folded header": GET + HOST + b"X: a\r\n b\r\n\r\n",
    "a bare return": GET + HOST + b"X: a\rb\r\n\r\n",
    "a NUL in a header": GET + HOST + b"X: a\0b\r\n\r\n",
    "white space before the colon": GET + HOST + b"X : a\r\n\r\n",
    "no colon": GET + HOST + b"X\r\n\r\n",
    "lines that end with a line feed": (GET + HOST + b"X: a\r\n\r\n").replace(b"\r\n", b"\n"),
    "empty lines in front": b"\r\n\r\n" + GET + HOST + b"\r\n",
    "a space in front": b" " + GET + HOST + b"\r\n",
    "tabs for spaces": b"GET\t/health\tHTTP/1.1\r\n" + HOST + b"\r\n",
    "two spaces": b"GET  /health  HTTP/1.1\r\n" + HOST + b"\r\n",
    "a version to come": b"GET /health HTTP/9.9\r\n" + HOST + b"\r\n",
    "a version in small letters": b"GET /health http/1.1\r\n" + HOST + b"\r\n",
    "a version of many digits": b"GET /health HTTP/1.111111111111111111111\r\n" + HOST + b"\r\n",
    "an old version": b"GET /health HTTP/1.0\r\n\r\n",
    "a user in the host": GET + b"Host: a@b\r\nConnection: close\r\n\r\n",
    "a path in the host": GET + b"Host: a/../b\r\nConnection: close\r\n\r\n",
    "no name": GET + HOST + b": a\r\n\r\n",
    "a name that is not ASCII": GET + HOST + b"X\xff: a\r\n\r\n",
    "a value that is not UTF-8": GET + HOST + b"X: \xff\xfe\r\n\r\n",
    "a large header": GET + HOST + b"X: " + b"a" * 9000 + b"\r\n\r\n",
    "many headers": GET + HOST + b"".join(b"X-%d: 1\r\n" % n for n in range(300)) + b"\r\n",
    "many etags": GET + HOST + b"If-None-Match: " + b'"a",' * 1900 + b"\r\n\r\n",
    "two hosts": GET + HOST + b"Host: b\r\n\r\n",
    "a long target": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a long method": b"A" * 9000 + b" / HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method in small letters": b"get /health HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\n" + HOST + b"Cookie: secret\r\n\r\n",
    "a target that is a URL": b"GET http://b/health HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target that is a star": b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the target": b"GET /health x HTTP/1.1\r\n" + HOST + b"\r\n",
    "raw bytes in the target": b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path upwards": b"GET /todos/../health HTTP/1.1\r\n" + HOST + b"\r\n",
    "an encoded path upwards": b"GET /todos/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",
    "an overlong slash": b"GET /%c0%ae%c0%ae/%c0%afetc HTTP/1.1\r\n" + HOST + b"\r\n",
    "an encoded NUL": b"GET /todos/%00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /todos\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a change of protocol": GET + b"Host: a\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50,
}
