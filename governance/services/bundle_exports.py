"""Versions of policy bundles in the forms that OPA and Gatekeeper load."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from governance.domain import GovernanceError
from governance.models import BundleVersion
from governance.policy.base import PolicyBundle, PolicyError, PolicyModule
from governance.policy.exports.gatekeeper import gatekeeper_objects
from governance.policy.exports.modules import BundleLabel
from governance.policy.exports.opa_bundle import MEDIA_TYPE, opa_bundle
from governance.policy.regorus import RegorusPolicy

YAML: Final = "application/yaml"


class BundleForm(StrEnum):
    """What loads it."""

    OPA = "opa"
    GATEKEEPER = "gatekeeper"


class ExportRefused(GovernanceError):
    """The version cannot be said in that form; the text names what stands in the way."""


@dataclass(frozen=True, slots=True)
class ExportedBundle:
    """A file: its name, its media type and its bytes."""

    name: str
    media_type: str
    content: bytes


def export_version(version: BundleVersion, form: BundleForm) -> ExportedBundle:
    """The version as a file; the same version and stage give the same bytes.

    Raises ExportRefused.
    """
    modules = tuple(PolicyModule(one["path"], one["source"]) for one in version.modules)
    bundle = PolicyBundle(version.digest, modules, version.parameters)
    label = BundleLabel(version.name, version.version, version.stage, version.digest)
    parser = RegorusPolicy()
    try:
        if form is BundleForm.OPA:
            name = f"{version.name}-{version.version}.tar.gz"
            return ExportedBundle(name, MEDIA_TYPE, opa_bundle(bundle, label, parser=parser))
        name = f"{version.name}-{version.version}-gatekeeper.yaml"
        return ExportedBundle(name, YAML, gatekeeper_objects(bundle, label, parser=parser))
    except PolicyError as error:
        raise ExportRefused(str(error)) from error
    finally:
        parser.close()
