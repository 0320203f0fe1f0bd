import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from scripts.stack.server import wait_until
from tests.support.api import SECRET, token
from todo_api.auth import TokenVerifier, Unauthenticated
from todo_api.core.errors import KeysUnavailable

NOW = int(time.time())
HOUR = 3600


@pytest.fixture
def verifier():
    return TokenVerifier(algorithms=("HS256",), secret=SECRET)


def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(payload, header=None, key=SECRET):
    """A token over exactly these bytes, well signed whatever they are."""
    header = json.dumps({"alg": "HS256", "typ": "JWT"} if header is None else header).encode()
    text = f"{b64(header)}.{b64(payload)}"
    return f"{text}.{b64(hmac.digest(key.encode(), text.encode(), hashlib.sha256))}"


def refusal(verifier, authorization):
    with pytest.raises(Unauthenticated) as refused:
        verifier.verify(authorization)
    assert "\n" not in refused.value.challenge
    return refused.value


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer   "])
def test_the_scheme_is_read_in_any_case(verifier, scheme):
    assert verifier.verify(scheme + token("alice")) == "alice"


@pytest.mark.parametrize(
    "sub", ["a", "user@example.org", "  spaced ", "x" * 255, "\u540d\u524d", "\U0001f600", "a\nb"]
)
def test_the_subject_is_the_user(verifier, sub):
    assert verifier.verify(f"Bearer {token(sub)}") == sub
    assert verifier.verify(f"Bearer {token(sub)}") == sub


def test_without_a_header_the_challenge_names_no_error(verifier):
    assert refusal(verifier, None).challenge == 'Bearer realm="todo-api"'


@pytest.mark.parametrize(
    "authorization",
    [
        "", " ", "Bearer", "Bearer ", "Bearer x", "Bearer x.y", "Bearer x.y.z.w", "Bearer x.y.z, Bearer x.y.z",
        "Basic YTpi", "Token x.y.z", "x.y.z", "Bearer\tx.y.z", "Bearer x.y.z\n", "Bearer x .y.z", "Bearer ..",
        "Bearer a.b.c=", "Bearer \xe9.b.c", "Bearer a.b.\0", "BearerX a.b.c", "Bearer " + "a" * 100_000 + ".b.c",
    ],
)  # fmt: skip
def test_what_is_no_bearer_token_is_refused(verifier, authorization):
    assert 'error="invalid_token"' in refusal(verifier, authorization).challenge


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"}, {"alg": "None"}, {"alg": "NONE"}, {"alg": ""}, {"alg": None}, {"alg": ["HS256"]}, {"alg": {}},
        {"alg": "HS384"}, {"alg": "HS512"}, {"alg": "RS256"}, {"alg": "hs256"}, {"alg": "ES256"}, {"alg": 1}, {}, [], 1,
        "HS256", {"alg": "HS256", "crit": ["x"]}, {"alg": "HS256", "crit": []}, {"alg": "HS256", "b64": False},
        {"alg": "HS256", "crit": ["b64"], "b64": False}, {"alg": "HS256", "kid": 1}, {"alg": "HS256", "kid": ["x"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_that_is_not_plain_hs256_is_refused(verifier, header):
    refusal(verifier, f"Bearer {signed(json.dumps({'sub': 'a', 'exp': NOW + HOUR}).encode(), header)}")


def test_a_token_that_is_not_signed_is_refused(verifier):
    payload = json.dumps({"sub": "a", "exp": NOW + HOUR}).encode()
    for header in ({"alg": "none"}, {"alg": "HS256"}):
        refusal(verifier, f"Bearer {b64(json.dumps(header).encode())}.{b64(payload)}.")


@pytest.mark.parametrize(
    "header", [{"jku": "http://127.0.0.1:9/keys"}, {"x5u": "http://127.0.0.1:9/"}, {"kid": "../../etc"}]
)
def test_where_a_token_says_its_key_is_does_not_matter(verifier, header):
    payload = json.dumps({"sub": "a", "exp": NOW + HOUR}).encode()
    assert verifier.verify(f"Bearer {signed(payload, {'alg': 'HS256'} | header)}") == "a"
    refusal(verifier, f"Bearer {signed(payload, {'alg': 'HS256'} | header, key='x' * 32)}")


@pytest.mark.parametrize(
    "sub", [None, 1, 0, True, [], ["a"], {}, "", " ", "\t\n", "\u00a0", "a\0b", "x" * 256, "\ud800", 1.5]
)
def test_a_subject_that_is_no_user_is_refused(verifier, sub):
    refusal(verifier, f"Bearer {token(sub)}")


# Names that do not hold the time: pytest-xdist wants the same in each of its processes.
@pytest.mark.parametrize(
    "exp",
    [None, 0, -1, NOW - 1, NOW - HOUR, "9999999999", True, [], {}, "x", ""],
    ids=lambda exp: f"{exp - NOW:+}" if type(exp) is int and exp > 1 else repr(exp),
)
def test_a_token_without_a_good_end_is_refused(verifier, exp):
    refusal(verifier, f"Bearer {token(exp=exp)}")


@pytest.mark.parametrize("exp", ["1e999", "NaN", "Infinity", "-Infinity", "1e308", "null", "1" + "0" * 5000])
def test_an_end_out_of_range_is_never_an_error_of_ours(verifier, exp):
    payload = b'{"sub":"a","exp":%s}' % exp.encode()
    authorization = f"Bearer {signed(payload)}"
    if exp == "1e308":
        assert verifier.verify(authorization) == "a"
    else:
        refusal(verifier, authorization)


@pytest.mark.parametrize(
    "claims", [{"nbf": NOW + HOUR}, {"iat": NOW + HOUR}, {"nbf": "x"}, {"iat": []}, {"nbf": {}}, {"jti": 1}]
)
def test_a_token_that_is_not_good_yet_or_has_odd_claims_is_refused(verifier, claims):
    refusal(verifier, f"Bearer {token(**claims)}")


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{", b"[]", b"null", b'"a"', b"1", b"\xff", b"[" * 100_000, b'{"a":' * 50_000, b"{}" * 2, b"\0",
        b'{"sub":"\\ud800","exp":9999999999}', b'{"sub":"a","exp":9999999999}x',
    ],
    ids=lambda payload: payload[:12],
)  # fmt: skip
def test_a_signed_payload_that_is_no_claims_is_refused(verifier, payload):
    refusal(verifier, f"Bearer {signed(payload)}")


@given(position=st.integers(0, 10_000), other=st.sampled_from("AQgw_-z0"))
def test_a_token_with_one_character_changed_is_refused(position, other):
    verifier = TokenVerifier(algorithms=("HS256",), secret=SECRET)
    good = token()
    position %= len(good)
    if good[position] not in (".", other):
        changed = good[:position] + other + good[position + 1 :]
        # The last character of a part has spare bits; PyJWT refuses a second spelling.
        refusal(verifier, f"Bearer {changed}")


@pytest.mark.parametrize("key", ["x" * 32, SECRET + "x", SECRET[:-1], SECRET.upper(), "secret", ""])
def test_a_token_of_another_key_is_refused(verifier, key):
    refusal(verifier, f"Bearer {signed(json.dumps({'sub': 'a', 'exp': NOW + HOUR}).encode(), key=key)}")


@pytest.mark.parametrize("aud", [None, "other", ["other"], [], "", 1, "API"])
def test_the_wrong_audience_is_refused(aud):
    verifier = TokenVerifier(algorithms=("HS256",), secret=SECRET, audience="api")
    refusal(verifier, f"Bearer {token(aud=aud)}")
    assert verifier.verify(f"Bearer {token('a', aud=['other', 'api'])}") == "a"


@pytest.mark.parametrize("iss", [None, "other", "", ["issuer"], 1, "issuer/"])
def test_the_wrong_issuer_is_refused(iss):
    verifier = TokenVerifier(algorithms=("HS256",), secret=SECRET, issuer="issuer")
    refusal(verifier, f"Bearer {token(iss=iss)}")
    assert verifier.verify(f"Bearer {token('a', iss='issuer')}") == "a"


def test_an_audience_nobody_asked_for_does_not_matter(verifier):
    assert verifier.verify(f"Bearer {token('a', aud='other', iss='other')}") == "a"


def test_a_token_that_was_good_is_refused_from_its_end_on(verifier):
    authorization = f"Bearer {token('a', exp=int(time.time()) + 2)}"
    assert verifier.verify(authorization) == "a"

    def is_refused():
        try:
            verifier.verify(authorization)
        except Unauthenticated:
            return True
        return False

    wait_until(is_refused, 5, "the token is refused")
    assert "expired" in str(refusal(verifier, authorization))


def test_many_tokens_are_remembered_within_a_bound(verifier):
    first = f"Bearer {token('first')}"
    assert verifier.verify(first) == "first"
    for number in range(5000):
        verifier.verify(f"Bearer {token(str(number))}")
    assert len(verifier._remembered) <= 4096
    assert verifier.verify(first) == "first"


def test_a_refused_token_is_not_remembered(verifier):
    for _ in range(3):
        refusal(verifier, f"Bearer {token(key='x' * 32)}")
    assert verifier._remembered == {}


class OneKey:
    """The public key of one private key, under the id ``good``."""

    def __init__(self, private, algorithm):
        jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)
        self.key = jwt.PyJWK(jwk | {"kid": "good", "alg": algorithm, "use": "sig"})
        self.pem = private.public_key()
        self.failure = None

    def get(self, key_id):
        if self.failure is not None:
            raise self.failure
        return self.key if key_id == "good" else None


@pytest.fixture(scope="module", params=["RS256", "ES256"])
def provider(request):
    private = (
        rsa.generate_private_key(65537, 2048)
        if request.param == "RS256"
        else ec.generate_private_key(ec.SECP256R1())
    )
    return request.param, private


def provider_token(provider, **headers):
    algorithm, private = provider
    return jwt.encode({"sub": "a", "exp": NOW + HOUR}, private, algorithm, headers=headers)


def test_a_token_of_the_providers_key_is_good(provider):
    verifier = TokenVerifier(algorithms=("RS256", "ES256"), keys=OneKey(provider[1], provider[0]))
    assert verifier.verify(f"Bearer {provider_token(provider, kid='good')}") == "a"


@pytest.mark.parametrize("headers", [{}, {"kid": "other"}, {"kid": ""}])
def test_a_token_that_names_no_key_of_the_provider_is_refused(provider, headers):
    verifier = TokenVerifier(algorithms=("RS256", "ES256"), keys=OneKey(provider[1], provider[0]))
    refusal(verifier, f"Bearer {provider_token(provider, **headers)}")


def test_a_public_key_is_no_secret(provider):
    keys = OneKey(provider[1], provider[0])
    verifier = TokenVerifier(algorithms=("RS256", "ES256"), keys=keys)
    payload = json.dumps({"sub": "a", "exp": NOW + HOUR}).encode()
    refusal(verifier, f"Bearer {signed(payload, {'alg': 'HS256', 'kid': 'good'}, key=str(keys.pem))}")


def test_a_key_of_another_algorithm_than_the_tokens_is_refused(provider):
    other = rsa.generate_private_key(65537, 2048)
    forged = jwt.encode({"sub": "a", "exp": NOW + HOUR}, other, "RS256", headers={"kid": "good"})
    verifier = TokenVerifier(algorithms=("RS256", "ES256"), keys=OneKey(provider[1], provider[0]))
    refusal(verifier, f"Bearer {forged}")


def test_keys_that_cannot_be_fetched_are_no_verdict(provider):
    keys = OneKey(provider[1], provider[0])
    keys.failure = KeysUnavailable("away")
    with pytest.raises(KeysUnavailable):
        TokenVerifier(algorithms=("RS256",), keys=keys).verify(
            f"Bearer {provider_token(provider, kid='good')}"
        )


@pytest.mark.parametrize("options", [{}, {"secret": SECRET, "keys": object()}])
def test_a_verifier_needs_a_secret_or_keys_and_not_both(options):
    with pytest.raises(ValueError, match="either"):
        TokenVerifier(algorithms=("HS256",), **options)
