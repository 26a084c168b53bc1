"""The catalogue from the command line: listed, proposed, registered, ignored."""

from collections.abc import Callable

import pytest
import yaml
from django.utils import timezone

from agents.catalogue.reading import scan_cluster
from agents.models import Agent, ClusterWorkload
from agents.services.catalogue import record_scan
from tests.agents.cluster_objects import Listed, account, workload
from tests.console.cli_runs import Cli, cli_of, doorbell

__all__ = ["cli_of", "doorbell"]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cli(cli_of: Callable[..., Cli]) -> Cli:
    found = scan_cluster(
        Listed(
            workload("Deployment", "bot", namespace="default", env=("OPENAI_API_KEY",)),
            workload("Deployment", "web", namespace="default", account="web"),
            account("bot", namespace="default"),
            workload("Deployment", "far", env=("OPENAI_API_KEY",)),
        )
    )
    record_scan(found, cluster="prod", at=timezone.now())
    return cli_of("operator")


def test_what_looks_like_an_agent_is_listed_and_proposed_as_yaml(cli: Cli) -> None:
    head, *lines = cli.good("catalogue").splitlines()
    assert head.split()[:4] == ["NAMESPACE", "KIND", "NAME", "SCORE"]
    assert [line.split()[:4] for line in lines] == [["default", "Deployment", "bot", "95"]]
    assert "OPENAI_API_KEY" in cli.good("catalogue", "-o", "wide")
    assert cli.good("catalogue", "--show", "all", "-o", "name").splitlines() == [
        "Deployment/default/bot", "ServiceAccount/default/bot", "Deployment/default/web",
    ]  # fmt: skip
    documents = list(yaml.safe_load_all(cli.good("catalogue", "propose", "deployment/bot")))
    assert [one["kind"] for one in documents][-2:] == ["Deployment", "Agent"]


def test_an_entry_is_registered_ignored_and_looked_at_again(cli: Cli) -> None:
    assert cli.good("catalogue", "ignore", "web", "--reason", "a page") == (
        "Deployment/default/web ignored\n"
    )
    assert ClusterWorkload.objects.get(name="web").ignored_reason == "a page"
    cli.good("catalogue", "restore", "web")
    assert ClusterWorkload.objects.get(name="web").ignored_at is None
    uid = str(ClusterWorkload.objects.get(kind="Deployment", name="bot").uid)
    assert cli.good("catalogue", "register", uid[:8]) == "agent/default/bot created\n"
    assert cli.good("catalogue", "register", "Deployment/default/bot").endswith("unchanged\n")
    assert Agent.objects.get().name == "bot"


def test_what_is_not_there_or_several_is_said(cli: Cli) -> None:
    several = cli.run("catalogue", "propose", "bot")
    assert (several.exit_code, "Write KIND/NAME" in several.stderr) == (2, True)
    for name in ("nobody", "Job/bot", "Deployment/team-b/far"):
        gone = cli.run("catalogue", "register", name)
        assert (gone.exit_code, "that you may see" in gone.stderr) == (4, True)
    refused = cli.run("catalogue", "register", "ServiceAccount/bot")
    assert (refused.exit_code, "image is not known" in refused.stderr) == (6, True)
