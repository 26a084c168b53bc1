"""What the Job of an attempt says of the language model its agent is to use."""

from typing import Any

from agents.cluster.kubernetes.objects import job
from agents.cluster.kubernetes.record import new_record
from tests.agents.cluster_workloads import python_spec


def pod_metadata(**environment: str) -> dict[str, Any]:
    spec = python_spec("one", "pass", environment=environment)
    metadata: dict[str, Any] = job(spec, new_record(spec))["spec"]["template"]["metadata"]
    return metadata


def test_the_pod_says_which_model_it_starts_with() -> None:
    metadata = pod_metadata(CLEARANCE_MODEL="big")
    assert metadata["annotations"] == {"orchestration.ai/model": "big"}


def test_a_pod_of_an_agent_that_names_no_model_says_nothing() -> None:
    assert "annotations" not in pod_metadata(CLEARANCE_TASK="one")
