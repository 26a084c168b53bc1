"""People over the command line: listed, added, given roles, shut out."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from governance.services.people import grants_of
from tests.console.cli_runs import Cli, cli_of, doorbell

__all__ = ["cli_of", "doorbell"]

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_person_from_the_first_day_to_the_last(cli_of: Callable[..., Cli]) -> None:
    cli = cli_of("admin")
    made = cli.good("user", "add", "ada", "--role", "shop:operator", "--full-name", "Ada L")
    assert "user/ada added: shop:operator" in made
    (password,) = [
        line.partition(": ")[2] for line in made.splitlines() if line.startswith("one-time")
    ]
    ada = User.objects.get(username="ada")
    assert ada.check_password(password)
    cli.good("user", "role", "ada", "--give", "*:auditor", "--take", "shop:operator")
    assert [str(grant) for grant in grants_of(ada)] == ["*:auditor"]
    table = cli.good("get", "users", "-o", "wide")
    (line,) = [line for line in table.splitlines() if line.startswith("ada ")]
    assert "*:auditor" in line
    assert "one-time" in line
    assert "ada" in cli.good("get", "users", "ada")
    again = cli.good("user", "reset-password", "ada")
    assert password not in again
    cli.good("user", "deactivate", "ada")
    assert "deactivated" in cli.good("get", "users")
    assert "active: *:auditor" in cli.good("user", "activate", "ada")


def test_refusals_are_sentences(cli_of: Callable[..., Cli]) -> None:
    admin, viewer = cli_of("admin"), cli_of("viewer")
    assert "role admin" in viewer.run("get", "users").stderr
    assert "role admin" in viewer.run("user", "add", "eve", "--role", "*:admin").stderr
    assert "not NAMESPACE:ROLE" in admin.run("user", "add", "eve", "--role", "king").stderr
    assert "another administrator" in admin.run("user", "deactivate", "admin").stderr
    assert "Say which role" in admin.run("user", "role", "viewer").stderr
    assert not User.objects.filter(username="eve").exists()
