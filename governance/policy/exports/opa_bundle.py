"""A bundle as a tarball that OPA loads: https://www.openpolicyagent.org/docs/management-bundles."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any, Final

from governance.policy.base import PolicyBundle
from governance.policy.exports.modules import BundleLabel, OpaModule, read_modules
from governance.policy.regorus import RegorusPolicy

MEDIA_TYPE: Final = "application/vnd.openpolicyagent.bundles"
# Modules are asked for where they stand: what the parser moves them to is not used.
_UNUSED_PREFIX: Final = "moved"


def opa_bundle(bundle: PolicyBundle, label: BundleLabel, *, parser: RegorusPolicy) -> bytes:
    """A `.tar.gz` with the modules as written, `data.json` and `.manifest`; tests stay behind.

    The same bundle gives the same bytes. Raises PolicyError when it cannot be read.
    """
    modules = read_modules(bundle, prefix=_UNUSED_PREFIX, parser=parser).modules
    manifest = {
        "revision": label.digest,
        "roots": _roots([*(module.package for module in modules), *bundle.data]),
        "rego_version": 1,
        "file_rego_versions": {f"/{one.path}": 0 for one in modules if not one.is_v1},
        "metadata": {"name": label.name, "version": label.version, "stage": label.stage},
    }
    return _tarball(_files(manifest, bundle.data, modules))


def _files(
    manifest: Mapping[str, Any], data: Mapping[str, Any], modules: Iterable[OpaModule]
) -> dict[str, bytes]:
    files = {".manifest": _json(manifest), "data.json": _json(data)}
    return files | {module.path: module.source.encode() for module in modules}


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, sort_keys=True).encode() + b"\n"


def _roots(paths: Iterable[str]) -> list[str]:
    """What the bundle owns in OPA's tree; roots may not overlap, so their first parts."""
    return sorted({path.partition(".")[0] for path in paths})


def _tarball(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"/{name}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
