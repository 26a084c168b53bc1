"""The judging modules of a bundle, as OPA reads them."""

from dataclasses import dataclass

from governance.policy.base import PolicyBundle, PolicyError, PolicyPoint
from governance.policy.instrument import parsable_source
from governance.policy.regorus import RegorusPolicy


@dataclass(frozen=True, slots=True)
class BundleLabel:
    """What an export says it is: the bundle's name, version, stage and digest."""

    name: str
    version: int
    stage: str
    digest: str


@dataclass(frozen=True, slots=True)
class OpaModule:
    """A module as written, and below a package prefix of its own in Rego v1."""

    path: str
    package: str
    source: str
    moved: str
    is_v1: bool


@dataclass(frozen=True, slots=True)
class SpeakingRule:
    """A rule that gives verdicts: `clearance.workload.deny` and its outcome."""

    name: str
    outcome: str


@dataclass(frozen=True, slots=True)
class OpaModules:
    """Modules without tests, and the rules of them that speak at admission."""

    modules: tuple[OpaModule, ...]
    workload_rules: tuple[SpeakingRule, ...]


def read_modules(bundle: PolicyBundle, *, prefix: str, parser: RegorusPolicy) -> OpaModules:
    """Parse the bundle. Raises PolicyError when it cannot be read."""
    plan = parser.describe(bundle, prefix=prefix)
    for problem in plan.diagnostics:
        raise PolicyError("{path}:{line}:{column}: {text}".format(**problem))
    sources = {module.path: parsable_source(module.source)[0] for module in bundle.modules}
    modules = tuple(
        OpaModule(
            path=found["path"],
            package=found["package"],
            source=sources[found["path"]],
            moved=found["text"],
            is_v1=found["is_v1"],
        )
        for found in plan.answer["portable"]
    )
    spoken = ((one["rule"], one["outcome"]) for one in plan.clauses(PolicyPoint.WORKLOAD.value))
    rules = tuple(SpeakingRule(*one) for one in dict.fromkeys(spoken))
    return OpaModules(modules, rules)
