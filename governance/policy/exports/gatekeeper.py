"""A bundle's admission rules as Gatekeeper's objects: a ConstraintTemplate and its constraints.

Gatekeeper gives a rule `input.review`; `review.rego` makes of it what the bundle's rules read. Its
Rego may only use data below `data.lib`, so the modules move there, and the bundle's data becomes
modules, too.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from governance.policy.base import PolicyBundle, PolicyError
from governance.policy.exports.modules import BundleLabel, SpeakingRule, read_modules
from governance.policy.regorus import RegorusPolicy

TARGET: Final = "admission.k8s.gatekeeper.sh"
PREFIX: Final = "lib.clearance_bundle"
ROOT: Final = "clearance_data"  # what `data` is called in the moved modules
REVIEW: Final = Path(__file__).with_name("review.rego")
# What a stage means to Gatekeeper: https://open-policy-agent.github.io/gatekeeper/website/docs/violations
ACTIONS: Final[Mapping[str, str]] = {"enforce": "deny", "warn": "warn"}
SHADOW: Final = "dryrun"
# A human cannot be asked at admission: what needs an approval is refused until it is approved.
REFUSED: Final = ("deny", "require_approval")
ADVISED: Final = ("warn",)
KINDS: Final = [
    {"apiGroups": [""], "kinds": ["Pod", "PodTemplate", "ReplicationController"]},
    {"apiGroups": ["apps"], "kinds": ["DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"]},
    {"apiGroups": ["batch"], "kinds": ["CronJob", "Job"]},
]
GOVERNED: Final = {"matchLabels": {"orchestration.ai/governed": "true"}}
_DIGEST_DIGITS: Final = 8

Object = dict[str, Any]


def gatekeeper_objects(bundle: PolicyBundle, label: BundleLabel, *, parser: RegorusPolicy) -> bytes:
    """YAML of the template and of one constraint each for refusals and for warnings.

    Raises PolicyError when the bundle cannot be read or has no rule for workloads.
    """
    found = read_modules(bundle, prefix=PREFIX, parser=parser)
    if not found.workload_rules:
        raise PolicyError(
            f"{label.name} has no rule for workloads: Gatekeeper would have nothing to judge."
        )
    libraries = [REVIEW.read_text(encoding="utf-8")]
    libraries += [_as_library(module.moved) for module in found.modules]
    libraries += _data_modules(bundle.data)
    kind = _kind(label.name)
    template = _template(kind, label, _entry_point(kind, found.workload_rules), libraries)
    refusals = _constraint(kind, label, outcomes=REFUSED, parameters=bundle.data)
    advice = _constraint(kind, label, outcomes=ADVISED, parameters=bundle.data)
    documents = [template, refusals, *([advice] if label.stage == "enforce" else [])]
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=100).encode()


def _template(kind: str, label: BundleLabel, rego: str, libraries: Sequence[str]) -> Object:
    outcomes = {"type": "array", "items": {"type": "string", "enum": [*REFUSED, *ADVISED]}}
    parameters = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"outcomes": outcomes, "parameters": parameters}}
    source = {"version": "v1", "rego": rego, "libs": list(libraries)}
    return {
        "apiVersion": "templates.gatekeeper.sh/v1",
        "kind": "ConstraintTemplate",
        "metadata": {"name": kind.lower(), **_origin(label)},
        "spec": {
            "crd": {
                "spec": {"names": {"kind": kind}, "validation": {"openAPIV3Schema": schema}},
            },
            "targets": [{"target": TARGET, "code": [{"engine": "Rego", "source": source}]}],
        },
    }


def _constraint(
    kind: str, label: BundleLabel, *, outcomes: Sequence[str], parameters: Mapping[str, Any]
) -> Object:
    advised = outcomes == ADVISED
    action = ACTIONS.get(label.stage, SHADOW)
    return {
        "apiVersion": "constraints.gatekeeper.sh/v1beta1",
        "kind": kind,
        "metadata": {
            "name": f"{label.name}-{'advice' if advised else 'refusals'}",
            **_origin(label),
        },
        "spec": {
            "enforcementAction": "warn" if advised else action,
            "match": {"kinds": KINDS, "namespaceSelector": GOVERNED},
            "parameters": {
                "outcomes": list(outcomes if label.stage == "enforce" else (*REFUSED, *ADVISED)),
                "parameters": dict(parameters.get("parameters", {})),
            },
        },
    }


def _origin(label: BundleLabel) -> Object:
    return {
        "labels": {"app.kubernetes.io/part-of": "clearance"},
        "annotations": {
            "orchestration.ai/bundle": f"{label.name}@{label.version}",
            "orchestration.ai/bundle-digest": label.digest,
        },
    }


def _entry_point(kind: str, rules: Sequence[SpeakingRule]) -> str:
    """The module Gatekeeper asks: `violation`, with the name of the rule that spoke."""
    lines = [f"package {kind.lower()}", ""]
    lines += [f"import data.{PREFIX} as {ROOT}", "import data.lib.clearance_review", ""]
    for rule in rules:
        lines += [
            'violation contains {"msg": msg, "details": {"rule": rule}} if {',
            f'\t"{rule.outcome}" in input.parameters.outcomes',
            f'\trule := "{rule.name}"',
            "\tsome document in clearance_review.documents",
            f"\tsome said in {ROOT}.{rule.name} with input as document",
            '\tmsg := sprintf("%s: %s", [rule, text_of(said)])',
            "}",
            "",
        ]
    lines += ["text_of(said) := said if is_string(said)", ""]
    lines += ["text_of(said) := said.msg if is_object(said)", ""]
    return "\n".join(lines)


def _data_modules(data: Mapping[str, Any]) -> Iterator[str]:
    """The bundle's data as rules, one module for each object of its first level."""
    for name, content in sorted(data.items()):
        if name == "parameters":
            continue  # the constraint carries them, where its owner may change them
        if not isinstance(content, Mapping):
            raise PolicyError(f"data.json: {name}: must be an object, to be exported.")
        _check_name(name)
        lines = [f"package {PREFIX}.{name}", ""]
        for key, value in sorted(content.items()):
            _check_name(key)
            lines += [f"{key} := {json.dumps(value)}", ""]
        yield "\n".join(lines)


def _as_library(source: str) -> str:
    """The moved module with `data` imported under a name.

    Gatekeeper moves libraries once more and then finds a reference to `data` only where it is no
    part of a larger term: imported, it is found everywhere. It imports libraries alone, and is told
    the version of Rego beside the text.
    """
    lines = []
    for line in source.split("\n"):
        if line == "import rego.v1":
            lines.append(f"import data.{PREFIX} as {ROOT}")
        elif line.startswith("import "):
            lines.append(line)
        else:
            lines.append(re.sub(rf"\bdata\.{re.escape(PREFIX)}\b", ROOT, line))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise PolicyError(
            f"data.json: {name}: letters, digits and _ only, to be exported for Gatekeeper."
        )


def _kind(name: str) -> str:
    """The kind of the constraints; two bundles never share one."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    kind = "Clearance" + "".join(word.capitalize() for word in words)
    if [name] == words:
        return kind
    return kind + hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_DIGITS]


class _Dumper(yaml.SafeDumper):
    """YAML in which Rego stands as it is written."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    if "\n" not in value:
        return dumper.represent_str(value)
    clean = "\n".join(line.rstrip() for line in value.replace("\t", "  ").split("\n"))
    return dumper.represent_scalar("tag:yaml.org,2002:str", clean, style="|")


_Dumper.add_representer(str, _text)
# The same object under two keys is written out twice: Gatekeeper's users edit one of them.
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]
