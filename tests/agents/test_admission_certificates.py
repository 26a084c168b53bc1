"""Certificates over the years: what is trusted, what signs and what is shown at each moment."""

import datetime as dt
from itertools import pairwise

import pytest
from cryptography import x509

from agents.admission.certificates import (
    Certificates,
    Terms,
    first_certificates,
    hosts_of,
    next_certificates,
    told,
)

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
HOSTS = ["clearance-admission.clearance.svc", "127.0.0.1"]
LOOK = dt.timedelta(hours=12)


def is_trusted(held: Certificates, bundle: bytes) -> bool:
    """Would an API server with this `caBundle` talk to a server that shows this?"""
    serving = held.serving.parsed
    for authority in x509.load_pem_x509_certificates(bundle):
        if authority.subject == serving.issuer:
            serving.verify_directly_issued_by(authority)
            return True
    return False


def test_three_years_pass_without_a_moment_of_distrust() -> None:
    """Replicas look twice a day; the API server knows what it was told a look ago."""
    terms = Terms()
    held = told(first_certificates(HOSTS, terms=terms, now=START), now=START)
    seen = [held]
    now = START
    while now < START + dt.timedelta(days=3 * 365):
        now += LOOK
        held = next_certificates(held, HOSTS, terms=terms, now=now)
        assert is_trusted(held, seen[-1].bundle), f"{now}: shown before anybody trusts it"
        assert is_trusted(seen[-1], held.bundle), f"{now}: what is still shown is trusted no more"
        held = told(held, now=now)
        shown = held.serving.parsed
        assert shown.not_valid_before_utc <= now < shown.not_valid_after_utc
        seen.append(held)
    authorities = {one.pair for held in seen for one in held.authorities}
    assert len(authorities) == 5
    assert max(len(held.authorities) for held in seen) == 2
    changes = sum(before.serving != after.serving for before, after in pairwise(seen))
    assert 50 < changes < 60  # each after two thirds of its 30 days


def test_an_authority_nobody_was_told_of_signs_nothing() -> None:
    terms = Terms()
    held = told(first_certificates(HOSTS, terms=terms, now=START), now=START)
    late = START + dt.timedelta(days=300)
    twice = next_certificates(held, HOSTS, terms=terms, now=late)
    assert len(twice.authorities) == 2
    for days in (1, 20):  # the cluster does not answer
        now = late + dt.timedelta(days=days)
        twice = next_certificates(twice, HOSTS, terms=terms, now=now)
        assert is_trusted(twice, held.bundle)


def test_a_new_name_is_added_to_those_there_are() -> None:
    """So that a replica that is called otherwise does not take the other's name away."""
    held = first_certificates(HOSTS, terms=Terms(), now=START)
    wider = next_certificates(held, ["tower.example"], terms=Terms(), now=START)
    assert hosts_of(wider.serving) == {*HOSTS, "tower.example"}
    assert next_certificates(wider, HOSTS, terms=Terms(), now=START) == wider


def test_after_everything_has_ended_it_begins_anew() -> None:
    held = first_certificates(HOSTS, terms=Terms(), now=START)
    now = START + dt.timedelta(days=400)
    again = next_certificates(held, HOSTS, terms=Terms(), now=now)
    assert again.authorities != held.authorities
    assert is_trusted(again, again.bundle)


@pytest.mark.parametrize("host", HOSTS)
def test_a_stranger_finds_what_rfc_5280_asks(host: str) -> None:
    held = first_certificates([host], terms=Terms(), now=START)
    (authority,) = x509.load_pem_x509_certificates(held.bundle)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    serving = held.serving.parsed.extensions
    assert not serving.get_extension_for_class(x509.BasicConstraints).value.ca
    assert hosts_of(held.serving) == {host}
