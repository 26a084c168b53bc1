"""What the product remembers of an attempt on its Job: one annotation, swapped as a whole."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from agents.cluster.base import WorkloadSpec
from agents.cluster.specs import spec_content

RECORD: Final = "orchestration.ai/record"  # annotation of the Job
WORKLOAD: Final = "orchestration.ai/workload"  # label of the Job, its pods and its Secret
GOAL_UID: Final = "orchestration.ai/goal-uid"  # label of the same
METER: Final = "orchestration.ai/meter"  # finalizer of pods: none leaves before it is metered
RUN, PAUSE, EXHAUSTED, DELETE = "run", "pause", "exhausted", "delete"


@dataclass(slots=True)
class Record:
    """Everything that must outlive the pods: a suspended Job has none."""

    spec: str  # digest of the request
    attempt: str
    gpus: int
    allowance_ms: int | None
    deadline_seconds: float | None
    output_bytes_max: int
    wants: str = RUN
    ended_at: str = ""  # RFC 3339, when DELETE was asked
    # Running time of pods that have stopped, by pod uid: counted once, whoever counts.
    stopped_ms: dict[str, int] = field(default_factory=dict)
    started_at: str = ""  # of the first pod that ran
    gpu_ids: list[str] = field(default_factory=list)
    # What the cluster ended the last pod for: reason, message, node and priority of the pod. Kept
    # here because the pod is gone by the time the Job says that it failed.
    disruption: dict[str, str] = field(default_factory=dict)

    @property
    def stopped_total_ms(self) -> int:
        """Running time of all pods that have stopped."""
        return sum(self.stopped_ms.values())

    def annotation(self) -> str:
        """As it stands on the Job."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)


def new_record(spec: WorkloadSpec) -> Record:
    """The record of an attempt that has not run."""
    return Record(
        spec=spec_digest(spec),
        attempt=spec.attempt_uid,
        gpus=spec.gpus,
        allowance_ms=spec.gpu_allowance_ms,
        deadline_seconds=spec.deadline_seconds,
        output_bytes_max=spec.output_bytes_max,
    )


def read_record(job: Mapping[str, Any]) -> Record | None:
    """The record on a Job; None for a Job that is not ours or whose record was broken."""
    text = (job["metadata"].get("annotations") or {}).get(RECORD, "")
    try:
        return Record(**json.loads(text))
    except (ValueError, TypeError):
        return None


def spec_digest(spec: WorkloadSpec) -> str:
    """SHA-256 of the request: equal digests are the same request."""
    content = json.dumps(spec_content(spec), separators=(",", ":"), sort_keys=True)
    return "sha256:" + hashlib.sha256(content.encode()).hexdigest()
