"""Policy bundles: signed versions that move from draft through shadow and warn to enforce."""

from collections.abc import Mapping, Sequence
from typing import Any

from governance.domain import GovernanceError, Stage
from governance.models import BundleVersion
from governance.policy import get_policy_engine
from governance.policy.base import PolicyBundle, PolicyEngine, PolicyModule
from governance.policy.bundle import bundle_digest, load_starter_bundle
from governance.services.journal import append_record, journaled
from lineage.domain import Actor, ActorKind
from lineage.signing import get_signer
from lineage.signing.base import Signer

SYSTEM = Actor(ActorKind.SYSTEM, "bootstrap")
STARTER = "starter"
BUNDLE_PREDICATE = "https://orchestration.ai/policy-bundle/v1"


class BundleInvalid(GovernanceError):
    """A bundle that does not parse or whose tests fail; the text names file and line."""


def save_bundle(
    name: str,
    *,
    modules: Sequence[PolicyModule],
    parameters: Mapping[str, Any],
    actor: Actor,
    identity: str,
    engine: PolicyEngine | None = None,
    signer: Signer | None = None,
) -> BundleVersion:
    """Check, test, sign and keep a new version as draft; an unchanged one returns the last.

    Raises BundleInvalid naming the first thing that is wrong.
    """
    digest = bundle_digest(modules, parameters)
    last = BundleVersion.objects.filter(name=name).order_by("-version").first()
    if last is not None and last.digest == digest:
        return last
    _check(PolicyBundle(digest, tuple(modules), parameters), engine or get_policy_engine())
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": BUNDLE_PREDICATE,
        "predicate": {"modules": [module.path for module in modules]},
    }
    signature = (signer or get_signer()).sign_statement(statement, identity=identity)
    with journaled():
        last = BundleVersion.objects.filter(name=name).order_by("-version").first()
        if last is not None and last.digest == digest:
            return last  # another process saved it meanwhile
        version = BundleVersion.objects.create(
            name=name,
            version=(last.version if last else 0) + 1,
            digest=digest,
            modules=[{"path": m.path, "source": m.source} for m in modules],
            parameters=dict(parameters),
            signature_bundle=signature,
            created_by=actor.id,
        )
        _journal(version, "bundle.saved", actor)
    return version


def _check(bundle: PolicyBundle, engine: PolicyEngine) -> None:
    for problem in engine.check(bundle):
        raise BundleInvalid(f"{problem.path}:{problem.line}:{problem.column}: {problem.text}")
    for result in engine.run_tests(bundle):
        if not result.passed:
            raise BundleInvalid(f"{result.path}:{result.line}: {result.rule} fails. {result.text}")


def move_stage(version: BundleVersion, stage: Stage, *, actor: Actor) -> BundleVersion:
    """Put a version in a stage; the version enforced before steps back to draft at once."""
    with journaled():
        version.refresh_from_db()
        if version.stage == stage:
            return version
        if stage is Stage.ENFORCE:
            for other in BundleVersion.objects.filter(name=version.name, stage=stage):
                BundleVersion.objects.filter(pk=other.pk).update(stage=Stage.DRAFT)
                other.stage = Stage.DRAFT
                _journal(other, "bundle.draft", actor)
        BundleVersion.objects.filter(pk=version.pk).update(stage=stage)
        version.refresh_from_db()
        _journal(version, f"bundle.{stage.value}", actor)
    return version


def ensure_starter_bundle(*, identity: str) -> BundleVersion:
    """The starter bundle in force, unless somebody already put a bundle of that name anywhere.

    Repeating it changes nothing; a starter bundle that came with a newer product is kept as draft.
    """
    bundle = load_starter_bundle()
    # Also where somebody has built on it since: its newest version is another one then.
    kept = BundleVersion.objects.filter(name=STARTER, digest=bundle.digest).order_by("version")
    version = kept.first() or save_bundle(
        STARTER,
        modules=bundle.modules,
        parameters=bundle.data,
        actor=SYSTEM,
        identity=identity,
    )
    if version.version == 1 and version.stage == Stage.DRAFT:
        return move_stage(version, Stage.ENFORCE, actor=SYSTEM)
    return version


def _journal(version: BundleVersion, action: str, actor: Actor) -> None:
    append_record(
        action=action,
        actor=actor,
        object_kind="bundle",
        object_id=f"{version.name}@{version.version}",
        namespace="",
        body={"digest": version.digest, "version": version.version, "stage": version.stage},
    )
