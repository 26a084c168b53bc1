"""The filter of a list: what it keeps, and what it refuses to guess."""

import time

import pytest
from django.contrib.auth.models import User

from governance.row_filter import FilterInvalid, filter_query

pytestmark = pytest.mark.django_db

NAMES = ("checkout-risk", "checkout_fast", "profiler", "100%-sure", "Optimizer")


@pytest.fixture
def rows() -> None:
    User.objects.bulk_create(
        User(username=name, email=f"{name[:3]}@example.test", first_name="default")
        for name in NAMES
    )


def kept(text: str) -> set[str]:
    query = filter_query(text, words=["username", "email"], labels={"namespace": "first_name"})
    return set(User.objects.filter(query).values_list("username", flat=True)) & set(NAMES)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", set(NAMES)),
        ("CHECKOUT", {"checkout-risk", "checkout_fast"}),
        ("^check.*risk$", {"checkout-risk"}),
        ("^risk", set()),
        ("profiler|^opt", {"profiler", "Optimizer"}),
        ("p.o", {"profiler"}),
        ("!checkout", {"profiler", "100%-sure", "Optimizer"}),
        ("! ", set(NAMES)),
        ("t_f", {"checkout_fast"}),
        ("%", {"100%-sure"}),
        ("-f ckr", {"checkout-risk"}),
        ("-l namespace=default", set(NAMES)),
        ("-l namespace=other", set()),
        ("!-l namespace=default", set()),
    ],
)
def test_a_filter_keeps_what_it_says(text: str, names: set[str]) -> None:
    assert kept(text) == names


@pytest.mark.parametrize("text", ["(a+)+$", "a{1000}", "-l", "-l color=red", "\\d", "x" * 201])
def test_what_is_no_filter_is_named(text: str) -> None:
    with pytest.raises(FilterInvalid):
        kept(text)


def test_no_filter_is_slow() -> None:
    User.objects.create(username="a" * 150)
    started = time.perf_counter()
    kept(".*a" * 60 + "b$")
    kept("-f " + "a" * 150 + "b")
    assert time.perf_counter() - started < 1.0
