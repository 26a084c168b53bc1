"""What Jobs and pods say is read as a phase, a reason and a sentence."""

import datetime as dt
from typing import Any

from agents.cluster.kubernetes.reading import read_status
from agents.cluster.kubernetes.record import Record

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
RECORD = Record(
    spec="", attempt="a", gpus=0, allowance_ms=None, deadline_seconds=None, output_bytes_max=1
)


def waiting_pod(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {
        "metadata": {"uid": "1", "name": "a-1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "agent", "state": state}]},
    }


def test_an_image_that_would_be_root_says_what_helps() -> None:
    job = {
        "metadata": {
            "name": "a", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"
        },
        "spec": {},
    }  # fmt: skip
    said = "container has runAsNonRoot and image will run as root"  # as kubelets say it
    pod = waiting_pod("CreateContainerConfigError", said)
    status = read_status(job, [pod], RECORD, now=NOW)
    assert status.reason == "StartFailed"
    assert said in status.message
    assert "WORKLOAD_ROOT_NAMESPACES" in status.message
    other = read_status(job, [waiting_pod("CreateContainerError", "no disk")], RECORD, now=NOW)
    assert other.message == "no disk"
