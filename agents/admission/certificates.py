"""A small authority of our own for the webhooks: what certificates there are, and which come next.

Everything here is a function of what there is and of the time, so that replicas that look at the
same state decide the same. A new authority is first only trusted; when it has been for
`overlap_seconds` it signs, and the one before it is trusted for as long again.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATED: Final = dt.timedelta(minutes=5)  # clocks differ


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things are good for, in seconds. Each is replaced when a third of it is left."""

    authority_seconds: float = 365 * 86_400
    serving_seconds: float = 30 * 86_400
    overlap_seconds: float = 3600  # every API server knows of a new authority long before


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes

    @property
    def parsed(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.certificate)

    def is_worn(self, now: dt.datetime) -> bool:
        """Is a third of its time left, or less?"""
        one = self.parsed
        whole = one.not_valid_after_utc - one.not_valid_before_utc - BACKDATED
        return now >= one.not_valid_after_utc - whole / 3


@dataclass(frozen=True, slots=True)
class Authority:
    """One that signs or signed; `trusted_at` is when the webhooks were told, None before."""

    pair: Pair
    trusted_at: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Certificates:
    """Authorities, the oldest first, and what the server shows."""

    authorities: tuple[Authority, ...]
    serving: Pair

    @property
    def bundle(self) -> bytes:
        """Every authority that counts: the webhooks' `caBundle`, PEM."""
        return b"".join(one.pair.certificate for one in self.authorities)


def first_certificates(hosts: Sequence[str], *, terms: Terms, now: dt.datetime) -> Certificates:
    """A first authority and what it signs; nobody trusts it yet, so it need not wait."""
    authority = Authority(_authority(terms, now))
    return Certificates((authority,), _serving(authority.pair, hosts, terms, now))


def next_certificates(
    held: Certificates, hosts: Sequence[str], *, terms: Terms, now: dt.datetime
) -> Certificates:
    """What should be there now: the same when nothing is due."""
    alive = tuple(one for one in held.authorities if one.pair.parsed.not_valid_after_utc > now)
    if not alive:
        return first_certificates(hosts, terms=terms, now=now)
    overlap = dt.timedelta(seconds=terms.overlap_seconds)
    if alive[-1].pair.is_worn(now):
        alive = (*alive, Authority(_authority(terms, now)))
    ready = [one for one in alive if one.trusted_at and now - one.trusted_at >= overlap]
    issuer = ready[-1] if ready else alive[0]
    names = hosts_of(held.serving) | set(hosts)
    serving = held.serving
    is_issuers = serving.parsed.issuer == issuer.pair.parsed.subject
    if not is_issuers or serving.is_worn(now) or names != hosts_of(serving):
        serving = _serving(issuer.pair, sorted(names), terms, now)
    shown_for = now - serving.parsed.not_valid_before_utc - BACKDATED
    if shown_for >= overlap:  # nobody shows anything an older one has signed
        alive = alive[alive.index(issuer) :]
    return Certificates(alive, serving)


def told(held: Certificates, *, now: dt.datetime) -> Certificates:
    """The same, with it written down that the webhooks trust every authority since now."""
    authorities = tuple(
        one if one.trusted_at else replace(one, trusted_at=now) for one in held.authorities
    )
    return replace(held, authorities=authorities)


def hosts_of(pair: Pair) -> set[str]:
    """Names and addresses a serving certificate is good for."""
    names = pair.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(one) for one in names.get_values_for_type(x509.IPAddress)]
    return {*names.get_values_for_type(x509.DNSName), *addresses}


def _authority(terms: Terms, now: dt.datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # The serial in the name tells one authority from the next.
    name = _name(f"Clearance admission {serial:x}"[:64])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(seconds=terms.authority_seconds))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def _serving(authority: Pair, hosts: Sequence[str], terms: Terms, now: dt.datetime) -> Pair:
    issuer = authority.parsed
    issuer_key = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    until = min(now + dt.timedelta(seconds=terms.serving_seconds), issuer.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name("Clearance admission"))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    return _pair(certificate, key)


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
