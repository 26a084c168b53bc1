"""A tower for tests: speaks to the services as the entry points do."""

import datetime as dt
from typing import Any

AGENT = """
apiVersion: orchestration.ai/v1
kind: Agent
metadata: {{name: {name}, namespace: default}}
spec:
  role: {role}
  image: examples/{name}:1.0
  command: [python, {name}.py]
  serviceAccountName: {name}
  resources: {{limits: {{nvidia.com/gpu: {gpus}}}}}
  consumes: [{consumes}]
  produces: [{produces}]
  estimate: {{seconds: 20}}
  scope: {{releases: [checkout/production, checkout/canary]}}
"""

GOAL = """
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {{name: {name}, namespace: default}}
spec:
  objective: "p99 latency < 120 ms for /checkout"
  budget: {budget}
  agents: [{agents}]
  {more}
"""


class Tower:
    """Speaks to the services as the entry points do; one worker that is run by hand."""

    def __init__(self, people: dict[str, Any], twins: Any) -> None:
        from governance.access import principal_of

        self.people, self.twins = people, twins
        self.operator = principal_of(people["operator"])
        self.approver = principal_of(people["approver"])
        self.admin = principal_of(people["admin"])

    def register(
        self,
        name: str,
        *,
        gpus: int = 0,
        consumes: str = "",
        produces: str = "",
        role: str = "worker",
        models: str = "",
    ) -> Any:
        from agents.domain.documents import load_documents
        from agents.domain.manifest import parse_agent
        from agents.services.registry import register_agent

        text = AGENT.format(name=name, gpus=gpus, consumes=consumes, produces=produces, role=role)
        if models:
            text += f"  models: [{models}]\n"
        return register_agent(parse_agent(load_documents(text)[0]), actor=self.admin.actor)

    def apply(
        self,
        name: str = "reduce-p99-latency",
        *,
        agents: str = "profiler",
        budget: str = "50 GPU-minutes",
        more: str = "",
        by: Any = None,
    ) -> Any:
        from agents.domain.documents import load_documents
        from goals.domain.manifest import parse_goal
        from goals.services.apply import apply_goal

        text = GOAL.format(name=name, agents=agents, budget=budget, more=more)
        return apply_goal(parse_goal(load_documents(text)[0]), principal=by or self.operator)

    def reconcile(self, goal: Any) -> Any:
        from goals.services.reconcile import reconcile_goal

        for _ in range(50):
            if not reconcile_goal(goal.uid):
                break
        goal.refresh_from_db()
        return goal

    def attempts(self, goal: Any) -> list[Any]:
        from agents.models import Attempt

        return list(Attempt.objects.filter(goal_uid=goal.uid).order_by("created_at"))

    def observe(self, goal: Any, attempt: Any, value: float, *, span_id: str = "a" * 16) -> None:
        """Write one p99 latency of /checkout as the profiler would."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        from lineage.telemetry.base import SpanBatch, SpanOwner

        request = ExportTraceServiceRequest()
        span = request.resource_spans.add().scope_spans.add().spans.add()
        span.trace_id, span.span_id = b"\x01" * 16, bytes.fromhex(span_id)
        span.name = "observe latency"
        now = int(dt.datetime.now(dt.UTC).timestamp() * 1e9)
        span.start_time_unix_nano = span.end_time_unix_nano = now
        for key, text in {
            "observation.metric": "latency",
            "observation.aggregate": "p99",
            "observation.unit": "ms",
            "observation.selector": "/checkout",
        }.items():
            attribute = span.attributes.add()
            attribute.key, attribute.value.string_value = key, text
        attribute = span.attributes.add()
        attribute.key, attribute.value.double_value = "observation.value", value
        attribute = span.attributes.add()
        attribute.key, attribute.value.int_value = "observation.samples", 500
        owner = SpanOwner(
            "default", str(goal.uid), attempt.agent_name, attempt.task, str(attempt.uid)
        )
        self.twins.telemetry.write_spans([SpanBatch(owner, request.SerializeToString())])
