"""Bundles as content: their digest, and the starter bundle that ships with the product."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rfc8785

from governance.policy.base import PolicyBundle, PolicyModule

STARTER_DIRECTORY = Path(__file__).resolve().parent.parent / "starter"
STARTER_DATA: Mapping[str, Any] = {
    "clearance": {
        "thresholds": {
            # Share of the cluster's GPUs that only revenue-critical agents may take.
            "reserved_gpu_share_percent": 20,
            "experimental_max_gpus": 2,
            # 500 MB as storage is sold and the rule is written: decimal megabytes.
            "unproven_model_max_bytes": 500 * 1000 * 1000,
            # A graph that asks for more GPUs than this at once needs a human.
            "graph_gpus_without_approval": 8,
            "drift_orphan_rate_max": 0.2,
            "drift_min_actions": 20,
            "drift_confidence_min": 0.4,
            "drift_confidence_drop_max": 0.3,
            # Changes of one target upon one observation, one after the other; of one target
            # within a minute; and steps that name no target, which may be a batch and only warn.
            "drift_repeats_max": 25,
            "drift_changes_a_minute_max": 60,
            "drift_steps_max": 100,
        }
    }
}


def canonical_bundle(modules: Sequence[PolicyModule], data: Mapping[str, Any]) -> bytes:
    """The canonical JSON (RFC 8785) of the modules, sorted by path, and the data.

    Raises `ValueError` when the data cannot be written as JSON (its numbers are IEEE doubles).
    """
    content: dict[str, Any] = {
        "modules": [
            {"path": module.path, "source": module.source}
            for module in sorted(modules, key=lambda module: module.path)
        ],
        "data": data,
    }
    return rfc8785.dumps(content)


def bundle_digest(modules: Sequence[PolicyModule], data: Mapping[str, Any]) -> str:
    """`sha256:` over `canonical_bundle`, in lower-case hex. Raises `ValueError`."""
    return "sha256:" + hashlib.sha256(canonical_bundle(modules, data)).hexdigest()


def build_bundle(
    modules: Sequence[PolicyModule], *, data: Mapping[str, Any] | None = None
) -> PolicyBundle:
    """The bundle of these modules and data, named by its own digest."""
    ordered = tuple(sorted(modules, key=lambda module: module.path))
    content = dict(data or {})
    return PolicyBundle(digest=bundle_digest(ordered, content), modules=ordered, data=content)


def load_starter_bundle() -> PolicyBundle:
    """The five starter rules with approval, release and drift rules, and their Rego tests."""
    modules = [
        PolicyModule(path=path.name, source=path.read_text(encoding="utf-8"))
        for path in STARTER_DIRECTORY.glob("*.rego")
    ]
    return build_bundle(modules, data=STARTER_DATA)
