"""The public keys of a provider that is real: an HTTP server, up, away, slow and odd."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from scripts.stack.server import free_port, wait_until
from todo_api.auth import TokenVerifier, Unauthenticated
from todo_api.core.errors import KeysUnavailable
from todo_api.jwks import PublicKeys


def new_key(key_id):
    """A private key, and the JWK of its public half."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = jwt.get_algorithm_by_name("ES256").to_jwk(private.public_key(), as_dict=True)
    return private, public | {"kid": key_id, "use": "sig", "alg": "ES256"}


class Provider:
    """Serves ``body`` as its key set; ``goes_on`` holds the answers back while it is not set."""

    def __init__(self):
        self.body = b""
        self.fetches = 0
        self.goes_on = threading.Event()
        self.goes_on.set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                provider.fetches += 1
                provider.goes_on.wait(30)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(provider.body)

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"

    def serve(self, *public):
        self.body = json.dumps({"keys": public}).encode()


@pytest.fixture
def provider():
    provider = Provider()
    thread = threading.Thread(target=provider.server.serve_forever, args=(0.01,))
    thread.start()
    yield provider
    provider.goes_on.set()
    provider.server.shutdown()
    thread.join()
    provider.server.server_close()


@contextmanager
def keys_of(url, *, cooldown_s=0.05, wait_s=1.0):
    keys = PublicKeys(url, cooldown_s=cooldown_s, wait_s=wait_s)
    keys.start()
    try:
        yield keys
    finally:
        keys.close(5)


def has(keys, key_id):
    try:
        return keys.get(key_id) is not None
    except KeysUnavailable:
        return False


def test_a_token_signed_by_the_provider_is_good(provider):
    private, public = new_key("one")
    provider.serve(public)
    with keys_of(provider.url) as keys:
        verifier = TokenVerifier(algorithms=("ES256",), keys=keys)
        claims = {"sub": "alice", "exp": time.time() + 60}
        token = jwt.encode(claims, private, "ES256", headers={"kid": "one"})
        assert verifier.verify(f"Bearer {token}") == "alice"
        with pytest.raises(Unauthenticated):
            verifier.verify(f"Bearer {jwt.encode(claims, private, 'ES256', headers={'kid': 'two'})}")


def test_a_new_key_is_found_when_a_token_names_it(provider):
    _, first = new_key("first")
    _, second = new_key("second")
    provider.serve(first)
    with keys_of(provider.url) as keys:
        assert has(keys, "first")
        provider.serve(first, second)
        wait_until(lambda: has(keys, "second"), 10, "the new key")
        provider.serve(second)
        wait_until(lambda: not (has(keys, "unknown") or has(keys, "first")), 10, "the old key is gone")


def test_unknown_keys_cannot_make_us_fetch_more_often_than_the_cooldown(provider):
    provider.serve(new_key("one")[1])
    with keys_of(provider.url, cooldown_s=60) as keys:
        assert has(keys, "one")
        for number in range(100):
            assert keys.get(f"unknown-{number}") is None
    assert provider.fetches == 1


def test_keys_go_on_being_used_while_the_provider_is_away(provider):
    provider.serve(new_key("one")[1])
    with keys_of(provider.url) as keys:
        assert has(keys, "one")
        provider.body = b"<html>we will be back soon</html>"
        fetches = provider.fetches
        wait_until(lambda: not has(keys, "unknown") and provider.fetches > fetches + 1, 10, "more fetches")
        assert has(keys, "one")


ODD = [
    b"", b"null", b"[]", b"1", b"{}", b'{"keys":null}', b'{"keys":[]}', b'{"keys":[1]}', b'{"keys":[{}]}', b"\xff",
    b'{"keys":{"a":1}}', b'{"keys":[{"kty":"EC","kid":"one"}]}', b"[" * 100_000, b'{"keys":[{"kid":1,"kty":"RSA"}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", ODD, ids=lambda body: body[:40])
def test_an_odd_answer_is_no_keys_and_the_next_good_one_is_taken(provider, body):
    provider.body = body
    with keys_of(provider.url) as keys:
        wait_until(lambda: provider.fetches >= 2, 10, "fetched again")
        with pytest.raises(KeysUnavailable):
            keys.get("one")
        provider.serve(new_key("one")[1])
        wait_until(lambda: has(keys, "one"), 10, "the keys")


def test_a_provider_that_is_away_at_the_start_is_waited_for():
    with keys_of(f"http://127.0.0.1:{free_port()}/keys", wait_s=0.1) as keys, pytest.raises(KeysUnavailable):
        keys.get("one")


def test_nobody_waits_for_a_provider_that_is_known_to_be_away(provider):
    with keys_of(provider.url, wait_s=60) as keys:
        wait_until(lambda: provider.fetches >= 2, 10, "a fetch failed")
        for _ in range(20):
            with pytest.raises(KeysUnavailable):
                keys.get("one")


def test_requests_wait_for_a_slow_provider_side_by_side_and_not_long(provider):
    provider.goes_on.clear()
    with keys_of(provider.url, wait_s=0.5) as keys:
        ended = []

        def ask():
            with pytest.raises(KeysUnavailable):
                keys.get("one")
            ended.append(time.monotonic())

        began = time.monotonic()
        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # One after the other they would take 10 s.
        assert len(ended) == 20
        assert max(ended) - began < 5
        provider.goes_on.set()
