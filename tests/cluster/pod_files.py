"""What a pod asks its kubelet for: environment variables, and volumes as real files."""

import base64
import contextlib
import datetime as dt
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from agents.cluster.kubernetes.api import KubernetesApi, ObjectAbsent, object_path

Object = dict[str, Any]

SECRETS: Final = "api/v1/secrets"
CONFIG_MAPS: Final = "api/v1/configmaps"
ACCOUNTS: Final = "api/v1/serviceaccounts"
ADDRESS: Final = "127.0.0.1"  # of every pod and node: they are processes of this machine
TOKEN_SECONDS: Final = 3600  # what a projection without expirationSeconds gets
REFRESH_AT: Final = 0.8  # of a token's life, as kubelets do
REFERENCE: Final = re.compile(r"\$\$|\$\(([^()\s]+)\)")  # $(NAME), and $$ for a dollar


class MissingMaterial(Exception):
    """The pod names a Secret, ConfigMap, key or field that is not there."""


@dataclass(slots=True)
class PodFiles:
    """Volumes and variables of one pod, below a directory of its own."""

    api: KubernetesApi
    pod: Object
    directory: Path
    server: str  # URL of the API server, as pods reach it
    _refresh_at: dict[Path, dt.datetime] = field(default_factory=dict)

    # --- volumes ---------------------------------------------------------------------------------

    def write_volumes(self) -> None:
        """Make every volume. Safe to repeat. Raises MissingMaterial, `ClusterError`s."""
        for volume in self.pod["spec"].get("volumes") or []:
            path = self._volume_path(volume)
            path.mkdir(parents=True, exist_ok=True)
            self._fill(volume, path)

    def refresh_tokens(self) -> None:
        """Write tokens anew that are close to their end."""
        now = dt.datetime.now(dt.UTC)
        for volume in self.pod["spec"].get("volumes") or []:
            for source in (volume.get("projected") or {}).get("sources") or []:
                if token := source.get("serviceAccountToken"):
                    path = self._volume_path(volume) / token["path"]
                    if path in self._refresh_at and now >= self._refresh_at[path]:
                        self._write_token(token, path)

    def mounts(self, container: Object) -> Mapping[str, Path]:
        """Where the files of each mount path of a container really lie."""
        volumes = {one["name"]: one for one in self.pod["spec"].get("volumes") or []}
        found = {}
        for mount in container.get("volumeMounts") or []:
            path = self._volume_path(volumes[mount["name"]])
            found[str(mount["mountPath"]).rstrip("/")] = path / str(mount.get("subPath", ""))
        return found

    def remove(self) -> None:
        """Forget the volumes of a pod that is gone."""
        shutil.rmtree(self.directory / "volumes", ignore_errors=True)

    def _volume_path(self, volume: Object) -> Path:
        if host := volume.get("hostPath"):
            return Path(host["path"])
        if claim := volume.get("persistentVolumeClaim"):
            namespace = str(self.pod["metadata"]["namespace"])
            return self.directory.parent / "claims" / namespace / str(claim["claimName"])
        return self.directory / "volumes" / str(volume["name"])

    def _fill(self, volume: Object, path: Path) -> None:
        if source := volume.get("secret"):
            self._write_object(SECRETS, source, source["secretName"], path)
        elif source := volume.get("configMap"):
            self._write_object(CONFIG_MAPS, source, source["name"], path)
        elif source := volume.get("downwardAPI"):
            self._write_fields(source, path)
        elif projected := volume.get("projected"):
            for one in projected.get("sources") or []:
                self._project(one, path)
        elif not any(
            volume.get(kind) is not None
            for kind in ("emptyDir", "hostPath", "persistentVolumeClaim")
        ):
            raise MissingMaterial(f"volume {volume['name']} is of a kind this kubelet has not.")

    def _project(self, source: Object, path: Path) -> None:
        if token := source.get("serviceAccountToken"):
            self._write_token(token, path / token["path"])
        elif wanted := source.get("secret"):
            self._write_object(SECRETS, wanted, wanted["name"], path)
        elif wanted := source.get("configMap"):
            self._write_object(CONFIG_MAPS, wanted, wanted["name"], path)
        elif wanted := source.get("downwardAPI"):
            self._write_fields(wanted, path)

    def _write_object(self, collection: str, source: Object, name: str, path: Path) -> None:
        content = self._content(collection, name, is_optional=bool(source.get("optional")))
        items = source.get("items") or [{"key": key, "path": key} for key in content]
        for item in items:
            if item["key"] not in content:
                raise MissingMaterial(f"{name} has no key {item['key']}.")
            _write(path / item["path"], content[item["key"]])

    def _write_fields(self, source: Object, path: Path) -> None:
        for item in source.get("items") or []:
            _write(path / item["path"], self._field(item["fieldRef"]["fieldPath"]).encode())

    def _write_token(self, source: Object, path: Path) -> None:
        """A token bound to this pod, by the TokenRequest API."""
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        seconds = int(source.get("expirationSeconds") or TOKEN_SECONDS)
        wanted: Object = {
            "expirationSeconds": seconds,
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"],
            },
        }  # fmt: skip
        if audience := source.get("audience"):
            wanted["audiences"] = [audience]
        account = spec.get("serviceAccountName", "default")
        answer = self.api.create(
            object_path(ACCOUNTS, metadata["namespace"], account) + "/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": wanted},
        )
        _write(path, str(answer["status"]["token"]).encode())
        life = dt.timedelta(seconds=seconds * REFRESH_AT)
        self._refresh_at[path] = dt.datetime.now(dt.UTC) + life

    # --- variables -------------------------------------------------------------------------------

    def environment(self, container: Object) -> dict[str, str]:
        """Exactly what the container's `envFrom` and `env` say, and what every pod gets."""
        parts = urlsplit(self.server)
        found = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME": self.pod["metadata"]["name"],
            "KUBERNETES_SERVICE_HOST": parts.hostname or ADDRESS,
            "KUBERNETES_SERVICE_PORT": str(parts.port or 443),
        }
        for source in container.get("envFrom") or []:
            prefix = source.get("prefix", "")
            for kind, collection in (("secretRef", SECRETS), ("configMapRef", CONFIG_MAPS)):
                if wanted := source.get(kind):
                    content = self._content(
                        collection, wanted["name"], is_optional=bool(wanted.get("optional"))
                    )
                    found |= {prefix + key: value.decode() for key, value in content.items()}
        for one in container.get("env") or []:
            value = self._value(one)
            if value is not None:
                found[one["name"]] = expand(value, found)
        return found

    def _value(self, variable: Object) -> str | None:
        source = variable.get("valueFrom")
        if not source:
            return str(variable.get("value", ""))
        if wanted := source.get("fieldRef"):
            return self._field(wanted["fieldPath"])
        for kind, collection in (("secretKeyRef", SECRETS), ("configMapKeyRef", CONFIG_MAPS)):
            if wanted := source.get(kind):
                is_optional = bool(wanted.get("optional"))
                content = self._content(collection, wanted["name"], is_optional=is_optional)
                if wanted["key"] in content:
                    return content[wanted["key"]].decode()
                if is_optional:
                    return None
                raise MissingMaterial(f"{wanted['name']} has no key {wanted['key']}.")
        raise MissingMaterial(f"variable {variable['name']} has a source this kubelet has not.")

    def _field(self, path: str) -> str:
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        if found := re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path):
            return str((metadata.get(found[1]) or {}).get(found[2], ""))
        if path in ("metadata.labels", "metadata.annotations"):
            pairs = metadata.get(path.removeprefix("metadata.")) or {}
            return "\n".join(f'{key}="{value}"' for key, value in sorted(pairs.items()))
        values = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"],
            "spec.nodeName": spec.get("nodeName", ""),
            "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
            "status.podIP": ADDRESS,
            "status.podIPs": ADDRESS,
            "status.hostIP": ADDRESS,
        }
        if path not in values:
            raise MissingMaterial(f"field {path} is none this kubelet knows.")
        return str(values[path])

    def _content(self, collection: str, name: str, *, is_optional: bool) -> dict[str, bytes]:
        path = object_path(collection, self.pod["metadata"]["namespace"], name)
        try:
            found = self.api.get(path)
        except ObjectAbsent as error:
            if is_optional:
                return {}
            raise MissingMaterial(str(error)) from error
        return content_of(found)


def content_of(found: Object) -> dict[str, bytes]:
    """The bytes of a Secret or ConfigMap by key."""

    decoded = {key: base64.b64decode(text) for key, text in (found.get("binaryData") or {}).items()}
    for key, text in (found.get("data") or {}).items():
        is_secret = found.get("kind") == "Secret"
        decoded[key] = base64.b64decode(text) if is_secret else text.encode()
    return decoded


def expand(text: str, environment: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the variable, when there is one; `$$` is a dollar."""

    def put(found: "re.Match[str]") -> str:
        if found[0] == "$$":
            return "$"
        return environment.get(found[1], found[0])

    return REFERENCE.sub(put, text)


def relocate(text: str, mounts: Mapping[str, Path]) -> str:
    """A path below a mount path, as it is on this machine."""
    for mount, path in sorted(mounts.items(), key=lambda item: -len(item[0])):
        if text == mount or text.startswith(mount + "/"):
            return str(path) + text.removeprefix(mount)
    return text


def relocated(words: Sequence[str], mounts: Mapping[str, Path]) -> list[str]:
    """Words of a command; `--option=PATH` too."""
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        is_option = bool(equals) and name.startswith("-")
        found.append(
            name + equals + relocate(value, mounts) if is_option else relocate(word, mounts)
        )
    return found


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".fresh")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    fresh.replace(path)
