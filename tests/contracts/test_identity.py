"""The trust domain port: the same demands on the local CA and on the twin."""

import base64
import datetime as dt
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from django.core.exceptions import ImproperlyConfigured
from spiffe import JwtBundle, SpiffeId, X509Bundle
from spiffe import JwtSvid as SpiffeJwtSvid
from spiffe import TrustDomain as SpiffeTrustDomain
from spiffe import X509Svid as SpiffeX509Svid
from spiffe.svid.errors import InvalidTokenError

from agents.identity import get_trust_domain
from agents.identity.authority import (
    JWT_KEY_KEPT_AFTER,
    JWT_KEY_PUBLISHED_AHEAD,
    Authority,
    authority_from_json,
)
from agents.identity.base import (
    IdentityError,
    IdentityUnavailable,
    InvalidSigningRequest,
    InvalidSpiffeId,
    InvalidToken,
)
from agents.identity.local import LocalTrustDomain
from agents.identity.memory import MemoryTrustDomain
from agents.identity.names import spiffe_id as workload_spiffe_id

pytestmark = pytest.mark.contract

NAME = "clearance.test"
GOAL = "6f1c9a52-7a55-4b0e-9b8f-0f6f4d0f7a11"
WORKLOAD = f"spiffe://{NAME}/ns/shop/sa/optimizer/goal/{GOAL}/agent/optimizer"
AUDIENCE = "clearance"
AnyTrustDomain = LocalTrustDomain | MemoryTrustDomain


class Clock:
    """A clock the test moves."""

    def __init__(self) -> None:
        self.now = dt.datetime.now(dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now

    def advance(self, **span: float) -> None:
        self.now += dt.timedelta(**span)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["local", "memory"])
def domain(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AnyTrustDomain:
    if request.param == "local":
        return LocalTrustDomain(NAME, directory=tmp_path / "keys" / "identity", clock=clock)
    return MemoryTrustDomain(NAME, clock=clock)


@pytest.fixture
def workload_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def csr_for(key: Any, *, common_name: str = "whoever") -> str:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier("spiffe://clearance.test/admin")]
            ),
            critical=False,
        )
        .sign(key, algorithm)
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


def pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def jwt_bundle(domain: AnyTrustDomain) -> JwtBundle:
    """What a relying party reads out of the bundle document: the entries for JWT-SVIDs."""
    keys = [key for key in domain.bundle()["keys"] if key["use"] == "jwt-svid"]
    return JwtBundle.parse(SpiffeTrustDomain(NAME), json.dumps({"keys": keys}).encode())


def segment(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


# --- X.509-SVIDs ---------------------------------------------------------------------------------


def test_x509_svid_is_taken_by_the_spiffe_library(
    domain: AnyTrustDomain, workload_key: ec.EllipticCurvePrivateKey
) -> None:
    issued = domain.issue_x509(WORKLOAD, csr_for(workload_key), ttl_seconds=300)

    svid = SpiffeX509Svid.parse(issued.certificate_chain_pem.encode(), pkcs8(workload_key))
    bundle = X509Bundle.parse(SpiffeTrustDomain(NAME), domain.x509_authorities_pem().encode())
    [root] = bundle.x509_authorities

    assert svid.spiffe_id == SpiffeId(WORKLOAD)
    assert svid.spiffe_id.trust_domain == SpiffeTrustDomain(NAME)
    svid.leaf.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert issued.serial == f"{svid.leaf.serial_number:x}"
    assert issued.expires_at == svid.leaf.not_valid_after_utc


def test_x509_svid_has_exactly_the_fields_of_the_specification(
    domain: AnyTrustDomain, workload_key: ec.EllipticCurvePrivateKey, clock: Clock
) -> None:
    issued = domain.issue_x509(WORKLOAD, csr_for(workload_key), ttl_seconds=300)
    leaf = x509.load_pem_x509_certificate(issued.certificate_chain_pem.encode())
    extension = leaf.extensions.get_extension_for_oid

    names = extension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    assert list(names.value) == [x509.UniformResourceIdentifier(WORKLOAD)]
    assert names.critical  # because the subject is empty
    assert leaf.subject == x509.Name([])  # the subject of the request is ignored
    assert extension(ExtensionOID.BASIC_CONSTRAINTS).value.ca is False
    usage = extension(ExtensionOID.KEY_USAGE)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign
    assert set(extension(ExtensionOID.EXTENDED_KEY_USAGE).value) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert leaf.public_key() == workload_key.public_key()
    second = clock.now.replace(microsecond=0)
    assert leaf.not_valid_after_utc == second + dt.timedelta(seconds=300)
    assert second - dt.timedelta(minutes=2) < leaf.not_valid_before_utc < second


def test_x509_svid_verifies_with_openssl(
    domain: AnyTrustDomain, workload_key: ec.EllipticCurvePrivateKey, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl: the command is not installed")
    issued = domain.issue_x509(WORKLOAD, csr_for(workload_key), ttl_seconds=300)
    (tmp_path / "leaf.pem").write_text(issued.certificate_chain_pem)
    (tmp_path / "root.pem").write_text(domain.x509_authorities_pem())

    for purpose in ("sslclient", "sslserver"):
        command = [openssl, "verify", "-x509_strict", "-purpose", purpose]
        command += ["-CAfile", str(tmp_path / "root.pem"), str(tmp_path / "leaf.pem")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr


def test_root_is_a_signing_certificate_of_the_trust_domain(domain: AnyTrustDomain) -> None:
    root = x509.load_pem_x509_certificate(domain.x509_authorities_pem().encode())
    extension = root.extensions.get_extension_for_oid

    assert extension(ExtensionOID.BASIC_CONSTRAINTS).value.ca is True
    usage = extension(ExtensionOID.KEY_USAGE)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert list(extension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value) == [
        x509.UniformResourceIdentifier(f"spiffe://{NAME}")
    ]


@pytest.mark.parametrize(
    "make_key",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
    ids=["p384", "rsa2048"],
)
def test_other_sound_keys_are_certified(
    domain: AnyTrustDomain, make_key: Callable[[], Any]
) -> None:
    key = make_key()
    issued = domain.issue_x509(WORKLOAD, csr_for(key), ttl_seconds=60)
    leaf = x509.load_pem_x509_certificate(issued.certificate_chain_pem.encode())
    assert leaf.public_key() == key.public_key()


def test_thumbprint_is_that_of_the_key_and_not_of_the_request(
    domain: AnyTrustDomain, workload_key: ec.EllipticCurvePrivateKey
) -> None:
    first = domain.issue_x509(WORKLOAD, csr_for(workload_key, common_name="a"), ttl_seconds=60)
    again = domain.issue_x509(WORKLOAD, csr_for(workload_key, common_name="b"), ttl_seconds=60)
    other_key = ec.generate_private_key(ec.SECP256R1())
    other = domain.issue_x509(WORKLOAD, csr_for(other_key), ttl_seconds=60)

    # RFC 7638, computed here by hand.
    numbers = workload_key.public_key().public_numbers()
    x, y = (segment(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    canonical = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
    assert first.key_thumbprint == segment(hashlib.sha256(canonical.encode()).digest())
    assert again.key_thumbprint == first.key_thumbprint != other.key_thumbprint
    assert first.serial != again.serial


def tampered_csr(key: ec.EllipticCurvePrivateKey) -> str:
    der = bytearray(
        x509.load_pem_x509_csr(csr_for(key).encode()).public_bytes(serialization.Encoding.DER)
    )
    at = der.find(b"whoever")
    der[at] ^= 1
    body = base64.encodebytes(bytes(der)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


@pytest.mark.parametrize(
    ("make_csr", "says"),
    [
        (lambda key: "", "not a PEM certificate signing request"),
        (lambda key: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "not a PEM certificate"),
        (lambda key: "żółw", "not a PEM certificate"),
        (lambda key: pkcs8(key).decode(), "not a PEM certificate signing request"),
        (lambda key: csr_for(key) + " " * 20_000, "longer than 16384"),
        (lambda key: csr_for(ec.generate_private_key(ec.SECP521R1())), "use P-256 or P-384"),
        (lambda key: csr_for(ed25519.Ed25519PrivateKey.generate()), "neither an EC nor an RSA"),
        (lambda key: csr_for(rsa.generate_private_key(65537, 1024)), "RSA key of 1024 bits"),
        (tampered_csr, "not signed by the key it holds"),
    ],
    ids=["empty", "cut", "not-ascii", "a-key", "huge", "p521", "ed25519", "rsa1024", "tampered"],
)
def test_bad_signing_requests_are_refused(
    domain: AnyTrustDomain,
    workload_key: ec.EllipticCurvePrivateKey,
    make_csr: Callable[[ec.EllipticCurvePrivateKey], str],
    says: str,
) -> None:
    with pytest.raises(InvalidSigningRequest, match=says):
        domain.issue_x509(WORKLOAD, make_csr(workload_key), ttl_seconds=60)


@pytest.mark.parametrize(
    "spiffe_id",
    [
        f"spiffe://{NAME}",
        f"spiffe://{NAME}/",
        f"spiffe://{NAME}/ns//sa",
        f"spiffe://{NAME}/ns/../sa",
        f"spiffe://{NAME}/ns/a b",
        f"spiffe://{NAME}/ns/a\n",
        f"spiffe://{NAME}/ns/" + "a" * 3000,
        "spiffe://other.test/ns/shop",
        f"https://{NAME}/ns/shop",
    ],
)
def test_only_workloads_of_the_trust_domain_get_documents(
    domain: AnyTrustDomain, workload_key: ec.EllipticCurvePrivateKey, spiffe_id: str
) -> None:
    with pytest.raises(InvalidSpiffeId):
        domain.issue_x509(spiffe_id, csr_for(workload_key), ttl_seconds=60)
    with pytest.raises(InvalidSpiffeId):
        domain.issue_jwt(spiffe_id, audience=[AUDIENCE], ttl_seconds=60)


@pytest.mark.parametrize("ttl_seconds", [0, -5, 3601])
def test_lives_outside_the_limits_are_refused(
    domain: AnyTrustDomain, workload_key: ec.EllipticCurvePrivateKey, ttl_seconds: int
) -> None:
    with pytest.raises(IdentityError, match="1 to 3600 seconds"):
        domain.issue_x509(WORKLOAD, csr_for(workload_key), ttl_seconds=ttl_seconds)
    with pytest.raises(IdentityError, match="1 to 3600 seconds"):
        domain.issue_jwt(WORKLOAD, audience=[AUDIENCE], ttl_seconds=ttl_seconds)


# --- JWT-SVIDs -----------------------------------------------------------------------------------


def test_jwt_svid_is_taken_by_the_spiffe_library(domain: AnyTrustDomain) -> None:
    issued = domain.issue_jwt(
        WORKLOAD, audience=[AUDIENCE], ttl_seconds=300, claims={"attempt": "a1"}
    )
    svid = SpiffeJwtSvid.parse_and_validate(issued.token, jwt_bundle(domain), {AUDIENCE})

    assert svid.spiffe_id == SpiffeId(WORKLOAD)
    assert svid.audience == {AUDIENCE}
    assert svid.expiry == int(issued.expires_at.timestamp())
    header = jwt.get_unverified_header(issued.token)
    assert header.keys() == {"alg", "kid", "typ"}
    assert header["alg"] == "ES256"
    with pytest.raises(InvalidTokenError, match=r"[Aa]udience"):
        SpiffeJwtSvid.parse_and_validate(issued.token, jwt_bundle(domain), {"other"})


def test_claims_come_back(domain: AnyTrustDomain, clock: Clock) -> None:
    issued = domain.issue_jwt(
        WORKLOAD, audience=[AUDIENCE, "ledger"], ttl_seconds=300, claims={"attempt": "a1"}
    )
    claims = domain.validate_jwt(issued.token, audience="ledger")

    assert claims.spiffe_id == WORKLOAD
    assert claims.token_id == issued.token_id
    assert list(claims.audience) == [AUDIENCE, "ledger"]
    assert claims.expires_at == issued.expires_at
    assert claims.issued_at == clock.now.replace(microsecond=0)
    assert claims.claims["attempt"] == "a1"


def test_no_two_tokens_share_an_id(domain: AnyTrustDomain) -> None:
    ids = {
        domain.issue_jwt(WORKLOAD, audience=[AUDIENCE], ttl_seconds=60).token_id for _ in range(20)
    }
    assert len(ids) == 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"claims": {"sub": "x"}}, "claims may not set sub"),
        ({"claims": {"exp": 1, "aud": "x"}}, "claims may not set aud, exp"),
        ({"claims": {"odd": {1, 2}}}, "cannot be written as JSON"),
        ({"claims": {"odd": float("nan")}}, "cannot be written as JSON"),
        ({"claims": {"big": "x" * 9000}}, "longer than 8192"),
        ({"audience": []}, "list of 1 to 8"),
        ({"audience": "clearance"}, "list of 1 to 8"),
        ({"audience": ["a"] * 9}, "list of 1 to 8"),
        ({"audience": [""]}, "text of 1 to 255"),
        ({"audience": [7]}, "text of 1 to 255"),
    ],
)
def test_tokens_that_cannot_be_issued(
    domain: AnyTrustDomain, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(IdentityError, match=says):
        domain.issue_jwt(WORKLOAD, **{"audience": [AUDIENCE], "ttl_seconds": 60, **arguments})


def test_expired_token_is_refused_unless_the_caller_allows_it(
    domain: AnyTrustDomain, clock: Clock
) -> None:
    token = domain.issue_jwt(WORKLOAD, audience=[AUDIENCE], ttl_seconds=300).token

    clock.advance(seconds=298)
    domain.validate_jwt(token, audience=AUDIENCE)
    clock.advance(seconds=2)
    with pytest.raises(InvalidToken, match="has expired"):
        domain.validate_jwt(token, audience=AUDIENCE)
    domain.validate_jwt(token, audience=AUDIENCE, expired_within_seconds=60)
    clock.advance(seconds=60)
    with pytest.raises(InvalidToken, match="has expired"):
        domain.validate_jwt(token, audience=AUDIENCE, expired_within_seconds=60)


def test_token_from_the_future_is_refused(domain: AnyTrustDomain, clock: Clock) -> None:
    token = domain.issue_jwt(WORKLOAD, audience=[AUDIENCE], ttl_seconds=300).token
    clock.advance(seconds=-120)
    with pytest.raises(InvalidToken, match="in the future"):
        domain.validate_jwt(token, audience=AUDIENCE)


def test_wrong_audience_is_refused(domain: AnyTrustDomain) -> None:
    token = domain.issue_jwt(WORKLOAD, audience=["elsewhere"], ttl_seconds=300).token
    with pytest.raises(InvalidToken, match="not for the audience 'clearance'"):
        domain.validate_jwt(token, audience=AUDIENCE)


def test_any_changed_character_is_refused(domain: AnyTrustDomain) -> None:
    token = domain.issue_jwt(WORKLOAD, audience=[AUDIENCE], ttl_seconds=300).token
    taken = []
    for at in range(len(token)):
        other = "A" if token[at] != "A" else "B"
        try:
            domain.validate_jwt(f"{token[:at]}{other}{token[at + 1 :]}", audience=AUDIENCE)
        except InvalidToken:
            continue
        taken.append(at)
    assert taken == []


Forge = Callable[[str, AnyTrustDomain], str]


def with_header(changes: dict[str, object]) -> Forge:
    def forge(token: str, domain: AnyTrustDomain) -> str:
        _, payload, signature = token.split(".")
        header = {**jwt.get_unverified_header(token), **changes}
        return f"{segment(header)}.{payload}.{signature}"

    return forge


def signed_with_public_key_as_secret(token: str, domain: AnyTrustDomain) -> str:
    """The classic algorithm confusion: HS256 with the published key as the shared secret."""
    key_id = jwt.get_unverified_header(token)["kid"]
    public_key = jwt_bundle(domain).get_jwt_authority(key_id)
    assert public_key is not None
    secret = public_key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    body = f"{segment({'alg': 'HS256', 'kid': key_id, 'typ': 'JWT'})}.{token.split('.')[1]}"
    return f"{body}.{segment(hmac.new(secret, body.encode(), hashlib.sha256).digest())}"


def signed_by_a_stranger(token: str, domain: AnyTrustDomain) -> str:
    return jwt.encode(
        jwt.decode(token, options={"verify_signature": False}),
        ec.generate_private_key(ec.SECP256R1()),
        algorithm="ES256",
        headers={"kid": jwt.get_unverified_header(token)["kid"]},
    )


FORGERIES: list[tuple[str, Forge, str]] = [
    ("empty", lambda token, domain: "", "not a JWT"),
    ("one part", lambda token, domain: token.split(".")[0], "not a JWT"),
    ("four parts", lambda token, domain: f"{token}.AAAA", "not a JWT|signature"),
    ("not ascii", lambda token, domain: "é.é.é", "not a JWT"),
    ("lone surrogate", lambda token, domain: "\ud800.a.b", "not a JWT"),
    ("header is a list", lambda token, domain: f"{segment([1])}.e30.AAAA", "not a JWT"),
    (
        "nested header",
        lambda token, domain: f"{segment(b'[' * 3000 + b']' * 3000)}.e30.AAAA",
        "not a JWT|longer",
    ),
    ("oversized", lambda token, domain: token + "A" * 8192, "longer than 8192"),
    (
        "alg none",
        lambda token, domain: f"{segment({'alg': 'none'})}.{token.split('.')[1]}.",
        "must be signed with ES256",
    ),
    ("alg None", with_header({"alg": "nOnE"}), "must be signed with ES256"),
    ("alg missing", with_header({"alg": None}), "must be signed with ES256|not a JWT"),
    ("HS256", signed_with_public_key_as_secret, "must be signed with ES256"),
    ("ES384", with_header({"alg": "ES384"}), "must be signed with ES256"),
    ("unknown kid", with_header({"kid": "nobody"}), "names a signing key"),
    ("kid is a path", with_header({"kid": "../../etc/passwd"}), "names a signing key"),
    ("kid is a number", with_header({"kid": 7}), "not a JWT|names a signing key"),
    ("jwk in header", with_header({"jwk": {"kty": "EC"}}), "header other than"),
    ("jku in header", with_header({"jku": "http://127.0.0.1/"}), "header other than"),
    ("crit in header", with_header({"crit": ["exp"]}), "header other than|not a JWT"),
    ("odd typ", with_header({"typ": "at+jwt"}), "typ other than"),
    ("stranger", signed_by_a_stranger, "signature of the JWT-SVID does not match"),
    ("no signature", lambda token, domain: token.rsplit(".", 1)[0] + ".", "signature|not a JWT"),
]


@pytest.mark.parametrize(
    ("forge", "says"), [case[1:] for case in FORGERIES], ids=[case[0] for case in FORGERIES]
)
def test_forged_tokens_are_refused_in_one_sentence(
    domain: AnyTrustDomain, forge: Forge, says: str
) -> None:
    token = domain.issue_jwt(WORKLOAD, audience=[AUDIENCE], ttl_seconds=300).token
    forged = forge(token, domain)
    with pytest.raises(InvalidToken, match=says) as refusal:
        domain.validate_jwt(forged, audience=AUDIENCE)
    sentence = str(refusal.value)
    assert sentence.endswith(".")
    assert len(sentence) < 200
    assert "\n" not in sentence


def test_token_of_another_trust_domain_is_refused(domain: AnyTrustDomain, clock: Clock) -> None:
    stranger = MemoryTrustDomain(NAME, clock=clock)
    token = stranger.issue_jwt(WORKLOAD, audience=[AUDIENCE], ttl_seconds=300).token
    with pytest.raises(InvalidToken, match="names a signing key"):
        domain.validate_jwt(token, audience=AUDIENCE)


def signing_key(domain: AnyTrustDomain, clock: Clock) -> tuple[ec.EllipticCurvePrivateKey, str]:
    """The domain's own key, to sign what a correct issuer would never sign."""
    if isinstance(domain, LocalTrustDomain):
        domain.bundle()
        authority = authority_from_json(domain._path.read_text())
    else:
        authority = domain._authority()
    key = authority.signing_key(clock.now)
    return key.private_key, key.key_id


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"exp": None}, "claim exp"),
        ({"exp": "soon"}, "claim exp"),
        ({"exp": True}, "claim exp"),
        ({"exp": 1e300}, "claim exp"),
        ({"exp": float("inf")}, "claim exp"),
        ({"exp": 10**30}, "claim exp"),
        ({"exp": -1}, "claim exp"),
        ({"iat": None}, "claim iat"),
        ({"aud": None}, "no audience"),
        ({"aud": 7}, "no audience"),
        ({"aud": []}, "not for the audience"),
        ({"aud": [AUDIENCE, 7]}, "no audience"),
        ({"jti": None}, "claim jti"),
        ({"sub": None}, "claim sub"),
        ({"sub": "spiffe://other.test/ns/shop"}, "not a workload of clearance.test"),
        ({"sub": f"spiffe://{NAME}"}, "not a workload of clearance.test"),
        ({"sub": f"spiffe://{NAME}/a/../b"}, "not a workload of clearance.test"),
    ],
)
def test_well_signed_nonsense_is_refused(
    domain: AnyTrustDomain, clock: Clock, change: dict[str, object], says: str
) -> None:
    private_key, key_id = signing_key(domain, clock)
    now = int(clock.now.timestamp())
    sound = {"sub": WORKLOAD, "aud": [AUDIENCE], "iat": now, "exp": now + 60, "jti": "1"}

    def signed(payload: dict[str, object]) -> str:
        kept = {name: value for name, value in payload.items() if value is not None}
        body = json.dumps(kept).encode()
        return jwt.PyJWS().encode(body, private_key, algorithm="ES256", headers={"kid": key_id})

    domain.validate_jwt(signed(sound), audience=AUDIENCE)
    with pytest.raises(InvalidToken, match=says):
        domain.validate_jwt(signed({**sound, **change}), audience=AUDIENCE)


# --- Bundle and rotation -------------------------------------------------------------------------


def test_bundle_document_follows_the_specification(domain: AnyTrustDomain) -> None:
    bundle = json.loads(json.dumps(domain.bundle()))

    roots = [key for key in bundle["keys"] if key["use"] == "x509-svid"]
    signers = [key for key in bundle["keys"] if key["use"] == "jwt-svid"]
    assert len(roots) + len(signers) == len(bundle["keys"])
    [root] = roots
    assert "kid" not in root
    [encoded] = root["x5c"]
    der = x509.load_pem_x509_certificate(domain.x509_authorities_pem().encode()).public_bytes(
        serialization.Encoding.DER
    )
    assert base64.b64decode(encoded) == der
    assert all(key["kid"] and key["kty"] == "EC" for key in signers)
    assert all("d" not in key for key in bundle["keys"])
    assert isinstance(bundle["spiffe_sequence"], int)
    assert bundle["spiffe_refresh_hint"] > 0


def test_rotation_publishes_first_signs_later_and_keeps_the_old_key(
    domain: AnyTrustDomain, clock: Clock
) -> None:
    def kid(token: str) -> str:
        return str(jwt.get_unverified_header(token)["kid"])

    def issue() -> str:
        return domain.issue_jwt(WORKLOAD, audience=[AUDIENCE], ttl_seconds=3600).token

    before = issue()
    sequence = domain.bundle()["spiffe_sequence"]
    domain.rotate_jwt_key()
    published = set(jwt_bundle(domain).jwt_authorities)
    assert len(published) == 2
    assert domain.bundle()["spiffe_sequence"] > sequence
    assert kid(issue()) == kid(before)

    clock.advance(seconds=JWT_KEY_PUBLISHED_AHEAD.total_seconds())
    after = issue()
    assert {kid(before), kid(after)} == published
    domain.validate_jwt(before, audience=AUDIENCE)
    domain.validate_jwt(after, audience=AUDIENCE)

    clock.advance(seconds=JWT_KEY_KEPT_AFTER.total_seconds() - 1)
    domain.rotate_jwt_key()
    assert kid(before) in jwt_bundle(domain).jwt_authorities
    clock.advance(seconds=1)
    domain.rotate_jwt_key()
    assert kid(before) not in jwt_bundle(domain).jwt_authorities
    assert kid(after) in jwt_bundle(domain).jwt_authorities


# --- Where the keys lie --------------------------------------------------------------------------


def test_twin_fails_when_told_to(clock: Clock) -> None:
    domain = MemoryTrustDomain(NAME, clock=clock)
    domain.fail_next(IdentityUnavailable("The keys are locked."))
    with pytest.raises(IdentityUnavailable, match="locked"):
        domain.bundle()
    assert domain.bundle()["keys"]


def test_constructor_touches_no_file(tmp_path: Path) -> None:
    LocalTrustDomain(NAME, directory=tmp_path / "keys" / "identity")
    assert list(tmp_path.iterdir()) == []


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "keys" / "identity"
    mask = os.umask(0)
    try:
        LocalTrustDomain(NAME, directory=directory).bundle()
    finally:
        os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in (directory, directory.parent)} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_keys_survive_the_process_and_are_shared(tmp_path: Path, clock: Clock) -> None:
    one = LocalTrustDomain(NAME, directory=tmp_path, clock=clock)
    tmp_path.chmod(0o700)
    token = one.issue_jwt(WORKLOAD, audience=[AUDIENCE], ttl_seconds=300).token
    other = LocalTrustDomain(NAME, directory=tmp_path, clock=clock)
    assert other.validate_jwt(token, audience=AUDIENCE).spiffe_id == WORKLOAD

    one.rotate_jwt_key()
    clock.advance(seconds=JWT_KEY_PUBLISHED_AHEAD.total_seconds())
    later = one.issue_jwt(WORKLOAD, audience=[AUDIENCE], ttl_seconds=300).token
    assert other.validate_jwt(later, audience=AUDIENCE).spiffe_id == WORKLOAD
    assert other.bundle() == one.bundle()


RACER = """
import sys, pathlib
from agents.identity.local import LocalTrustDomain
domain = LocalTrustDomain("clearance.test", directory=pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(domain.bundle()["keys"][1]["kid"], flush=True)
"""


def test_processes_that_start_together_make_one_trust_domain(tmp_path: Path) -> None:
    directory = tmp_path / "keys" / "identity"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        answers = dict.fromkeys(racers, "")
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            answers[racer] = racer.communicate(timeout=30)[0].strip()
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert len(set(answers.values())) == 1
    assert "" not in answers.values()


def test_what_a_killed_process_left_does_not_matter(tmp_path: Path) -> None:
    directory = tmp_path / "identity"
    directory.mkdir(mode=0o700)
    (directory / "authority.json.new").write_text('{"format": 1, "trust_dom')
    (directory / "authority.json.new").chmod(0o644)
    domain = LocalTrustDomain(NAME, directory=directory)
    assert len(domain.bundle()["keys"]) == 2
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_text("{}"), "is damaged"),
        (lambda path: path.write_text(path.read_text()[:400]), "is damaged"),
        (lambda path: path.write_text("[" * 100_000), "is damaged"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is damaged"),
        (lambda path: path.write_text('{"format": 2}'), "format 2 is not 1"),
        (lambda path: path.chmod(0o644), "run chmod 600"),
        (lambda path: path.parent.chmod(0o755), "run chmod 700"),
    ],
    ids=["empty", "cut", "nested", "bytes", "format", "file-mode", "directory-mode"],
)
def test_unusable_keys_are_one_sentence_with_the_fix(
    tmp_path: Path, damage: Callable[[Path], object], says: str
) -> None:
    directory = tmp_path / "identity"
    LocalTrustDomain(NAME, directory=directory).bundle()
    damage(directory / "authority.json")
    with pytest.raises(IdentityUnavailable, match=says):
        LocalTrustDomain(NAME, directory=directory).bundle()


def test_keys_of_another_trust_domain_are_not_taken_over(tmp_path: Path) -> None:
    LocalTrustDomain("first.test", directory=tmp_path / "identity").bundle()
    with pytest.raises(IdentityUnavailable, match=r"holds the keys of first\.test"):
        LocalTrustDomain("second.test", directory=tmp_path / "identity").bundle()


def test_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityUnavailable, match="cannot be used: Not a directory"):
        LocalTrustDomain(NAME, directory=tmp_path / "file" / "identity").bundle()


def test_stuck_lock_is_said_in_time(tmp_path: Path) -> None:
    directory = tmp_path / "identity"
    first = LocalTrustDomain(NAME, directory=directory)
    directory.mkdir(mode=0o700)
    second = LocalTrustDomain(NAME, directory=directory, lock_timeout_seconds=0.05)
    with first._exclusive(), pytest.raises(IdentityUnavailable, match="end it and try again"):
        second.bundle()
    assert second.bundle()["keys"]


def test_authority_survives_its_file(tmp_path: Path, clock: Clock) -> None:
    domain = LocalTrustDomain(NAME, directory=tmp_path / "identity", clock=clock)
    domain.rotate_jwt_key()
    text = (tmp_path / "identity" / "authority.json").read_text()
    authority: Authority = authority_from_json(text)
    assert authority.to_json() == text
    assert authority.bundle() == domain.bundle()


# --- Choice and names ----------------------------------------------------------------------------


def test_settings_choose_the_trust_domain(settings: Any, tmp_path: Path) -> None:
    settings.CLEARANCE_DATA = tmp_path
    settings.TRUST_DOMAIN_URL = f"local:{NAME}"
    assert get_trust_domain().name == NAME
    assert get_trust_domain() is get_trust_domain()
    get_trust_domain().bundle()
    assert (tmp_path / "keys" / "identity" / "authority.json").exists()
    settings.TRUST_DOMAIN_URL = "memory:twin.test"
    assert isinstance(get_trust_domain(), MemoryTrustDomain)


@pytest.mark.parametrize("url", ["", "spire:x", "local:", "local:UPPER.case", "local:a/b"])
def test_unusable_urls_name_the_variable(settings: Any, url: str) -> None:
    settings.TRUST_DOMAIN_URL = url
    with pytest.raises(ImproperlyConfigured, match="TRUST_DOMAIN_URL"):
        get_trust_domain()


def test_workload_spiffe_id_is_one_the_library_takes() -> None:
    built = workload_spiffe_id(
        NAME, namespace="shop", service_account="optimizer", goal_uid=GOAL, agent="canary_deployer"
    )
    assert built == f"spiffe://{NAME}/ns/shop/sa/optimizer/goal/{GOAL}/agent/canary_deployer"
    assert SpiffeId(built).path == built.removeprefix(f"spiffe://{NAME}")


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a b", "a%2fb", "ą", "a\n", "a?b", "a#b"])
@pytest.mark.parametrize("part", ["namespace", "service_account", "goal_uid", "agent"])
def test_no_part_can_leave_its_segment(part: str, bad: str) -> None:
    parts = {"namespace": "shop", "service_account": "sa", "goal_uid": GOAL, "agent": "a"}
    with pytest.raises(InvalidSpiffeId, match=part.replace("_", " ")):
        workload_spiffe_id(NAME, **{**parts, part: bad})
