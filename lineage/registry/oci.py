"""Artifacts in any registry that speaks the OCI distribution API (v1.1)."""

import base64
import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import rfc8785

from lineage.registry.base import (
    ArtifactNotFound,
    Descriptor,
    DigestMismatch,
    LayerSource,
    RegistryError,
    RegistryUnavailable,
    StoredArtifact,
    TagImmutable,
)
from lineage.registry.manifests import (
    EMPTY_BYTES,
    EMPTY_DIGEST,
    EMPTY_TYPE,
    INDEX_TYPE,
    MANIFEST_MAX_BYTES,
    MANIFEST_TYPE,
    TITLE_ANNOTATION,
    checked_digest,
    checked_media_type,
    checked_reference,
    decode_manifest,
    encode_descriptor,
    encode_manifest,
    sha256_digest,
)
from lineage.registry.spool import check_expected, copy_layer

# Everything is kept once in this repository; tagging mounts it into the one people asked for.
_ARTIFACTS = "artifacts"
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_SPOOL_BYTES = 8 << 20  # larger uploads wait on disk until their digest is known
_CHUNK_BYTES = 1 << 20
_PAGES_MAX = 1000  # a registry that links pages in a circle must not hold us for ever
_REFERRER_RETRIES = 5  # writers racing for one fallback index
_TOKEN_PATTERN = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class _Spooled:
    """A layer that is hashed and waits to be sent."""

    content: IO[bytes]
    descriptor: Descriptor


class OciRegistry:
    """A repository `<prefix>/artifacts` for content, and `<prefix>/<name>` for each tagged name.

    Blobs that were sent before an upload failed are referenced by nothing; collecting them is the
    registry's own housekeeping (distribution-spec has no client call that is safe for it).
    """

    def __init__(
        self,
        base_url: str,
        *,
        prefix: str,
        credentials: tuple[str, str] | None = None,
        timeout: httpx.Timeout = _TIMEOUT,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._prefix = prefix
        self._credentials = credentials
        self._timeout = timeout
        self._client: httpx.Client | None = None
        self._tokens: dict[str, str] = {}

    @classmethod
    def from_url(cls, url: str) -> Self:
        """From `oci://[user:password@]host[:port]/prefix[?insecure=1]`.

        Raises ValueError with a sentence that holds no credential.
        """
        parts = urlsplit(url)
        query = parse_qs(parts.query, keep_blank_values=True)
        if unknown := set(query) - {"insecure"}:
            raise ValueError(f"unknown option {sorted(unknown)[0]!r}.")
        if query.get("insecure", ["0"]) not in (["0"], ["1"]):
            raise ValueError("insecure takes 0 or 1.")
        prefix = parts.path.strip("/")
        try:
            port = parts.port
            checked_reference(f"{prefix}/{_ARTIFACTS}")
        except (ValueError, RegistryError) as error:
            raise ValueError("the port or the prefix cannot be read.") from error
        if not parts.hostname or not prefix:
            raise ValueError("a host and a prefix are needed.")
        scheme = "http" if query.get("insecure") == ["1"] else "https"
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        authority = f"{host}:{port}" if port else host
        credentials = None
        if parts.username is not None:
            credentials = (unquote(parts.username), unquote(parts.password or ""))
        return cls(f"{scheme}://{authority}", prefix=prefix, credentials=credentials)

    def push(
        self,
        layers: Sequence[LayerSource],
        *,
        artifact_type: str,
        annotations: Mapping[str, str] | None = None,
        subject: str = "",
        max_bytes: int | None = None,
        expected_digest: str = "",
    ) -> StoredArtifact:
        """See `Registry.push`. Nothing is sent before every layer is read, hashed and allowed."""
        if not layers:
            raise RegistryError("an artifact needs at least one layer.")
        of_subject = self._subject(subject)
        with contextlib.ExitStack() as stack:
            spooled = self._spool(layers, stack, max_bytes=max_bytes)
            check_expected(
                [item.descriptor.digest for item in spooled], expected_digest=expected_digest
            )
            content = encode_manifest(
                [item.descriptor for item in spooled],
                artifact_type=artifact_type,
                annotations=annotations or {},
                subject=of_subject,
            )
            for item in spooled:
                self._send_blob(_ARTIFACTS, item.descriptor, item.content)
        artifact = decode_manifest(content, digest=sha256_digest(content))
        self._send_empty(_ARTIFACTS)
        answer = self._put_manifest(_ARTIFACTS, artifact.digest, content, MANIFEST_TYPE)
        if subject and "oci-subject" not in answer.headers:
            self._list_referrer(subject, artifact, size=len(content))
        return artifact

    def stat(self, digest: str) -> StoredArtifact:
        """See `Registry.stat`."""
        return decode_manifest(self.manifest(digest), digest=digest)

    def manifest(self, digest: str) -> bytes:
        """See `Registry.manifest`."""
        content = self._get_manifest(_ARTIFACTS, checked_digest(digest), accept=MANIFEST_TYPE)
        if content is None:
            raise ArtifactNotFound(f"no artifact {digest} in the registry.")
        if sha256_digest(content) != digest:
            raise DigestMismatch(f"the stored manifest does not hash to {digest}.")
        return content

    def read_layer(self, digest: str, *, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """See `Registry.read_layer`."""
        path = self._path(_ARTIFACTS, "blobs", checked_digest(digest))
        hasher = hashlib.sha256()
        held = b""
        with self._streaming(path, digest) as answer:
            for chunk in answer.iter_bytes(chunk_bytes):
                hasher.update(chunk)
                if held:
                    yield held
                held = chunk
        if "sha256:" + hasher.hexdigest() != digest:
            raise DigestMismatch(f"the stored layer does not hash to {digest}.")
        if held:
            yield held

    def tag(self, repository: str, tag: str, digest: str) -> None:
        """See `Registry.tag`. The check is ours: the registry itself would let the tag move.

        Two writers that pass the check in the same instant are found out by reading the tag back;
        the one that lost is told so.
        """
        reference = checked_reference(repository, tag)
        content = self.manifest(digest)
        if self._tagged(repository, tag) is None:
            for layer in decode_manifest(content, digest=digest).layers:
                self._mount(repository, layer)
            self._send_empty(repository)
            self._put_manifest(repository, tag, content, MANIFEST_TYPE)
        named = self._tagged(repository, tag)
        if named != digest:
            raise TagImmutable(
                f"{reference} already names {named}: tags never move, choose another tag."
            )

    def resolve(self, repository: str, tag: str) -> str:
        """See `Registry.resolve`."""
        reference = checked_reference(repository, tag)
        digest = self._tagged(repository, tag)
        if digest is None:
            raise ArtifactNotFound(f"no artifact is tagged {reference}.")
        return digest

    def tags(self, repository: str) -> Mapping[str, str]:
        """See `Registry.tags`."""
        checked_reference(repository)
        names: set[str] = set()
        for page in self._pages(self._path(repository, "tags", "list")):
            names.update(str(name) for name in page.get("tags") or ())
        found = {name: self._tagged(repository, name) for name in sorted(names)}
        return {name: digest for name, digest in found.items() if digest is not None}

    def referrers(self, digest: str, *, artifact_type: str = "") -> Sequence[StoredArtifact]:
        """See `Registry.referrers`; the tag schema answers where the referrers API does not."""
        path = self._path(_ARTIFACTS, "referrers", checked_digest(digest))
        listed: set[str] = set()
        for page in self._pages(path):
            listed.update(str(entry["digest"]) for entry in page.get("manifests") or ())
        listed.update(str(entry["digest"]) for entry in self._fallback_index(digest))
        found = [self.stat(name) for name in sorted(listed)]
        return [
            item
            for item in found
            if item.subject == digest and artifact_type in ("", item.artifact_type)
        ]

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _subject(self, digest: str) -> Descriptor | None:
        if not digest:
            return None
        return Descriptor(MANIFEST_TYPE, digest, len(self.manifest(digest)))

    def _spool(
        self,
        layers: Sequence[LayerSource],
        stack: contextlib.ExitStack,
        *,
        max_bytes: int | None,
    ) -> list[_Spooled]:
        spooled: list[_Spooled] = []
        budget = max_bytes
        for layer in layers:
            checked_media_type(layer.media_type, field=f"media type of layer {layer.title!r}")
            spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 the stack closes it
            content: IO[bytes] = stack.enter_context(spool)

            def write(chunk: bytes, content: IO[bytes] = content) -> None:
                try:
                    content.write(chunk)
                except OSError as error:
                    raise RegistryUnavailable(
                        f"no room to hold the upload on disk: {error.strerror}."
                    ) from error

            digest, size = copy_layer(layer.stream, write, budget=budget)
            budget = None if budget is None else budget - size
            titles = {TITLE_ANNOTATION: layer.title} if layer.title else {}
            spooled.append(_Spooled(content, Descriptor(layer.media_type, digest, size, titles)))
        return spooled

    def _send_empty(self, repository: str) -> None:
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as content:
            content.write(EMPTY_BYTES)
            size = len(EMPTY_BYTES)
            self._send_blob(repository, Descriptor(EMPTY_TYPE, EMPTY_DIGEST, size), content)

    def _send_blob(self, repository: str, blob: Descriptor, content: IO[bytes]) -> None:
        """Send a blob in one piece (POST, then PUT), unless the registry has it."""
        if self._call("HEAD", self._path(repository, "blobs", blob.digest)).status_code == 200:
            return
        begun = self._call("POST", self._path(repository, "blobs", "uploads/"))
        self._expect(begun, {202}, f"start an upload of {blob.digest}")
        self._finish_upload(begun, blob, content)

    def _finish_upload(self, begun: httpx.Response, blob: Descriptor, content: IO[bytes]) -> None:
        location = begun.url.join(begun.headers.get("location", ""))
        answer = self._call(
            "PUT",
            str(location.copy_merge_params({"digest": blob.digest})),
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(blob.size),
            },
            body=content,
        )
        if answer.status_code == 400 and "DIGEST" in answer.text[:4096]:
            raise DigestMismatch(f"the registry received other bytes than {blob.digest}.")
        self._expect(answer, {201}, f"take {blob.digest}")

    def _mount(self, repository: str, layer: Descriptor) -> None:
        """Make a layer of the artifacts repository part of another one; copy it if need be."""
        path = self._path(repository, "blobs", "uploads/")
        origin = f"{self._prefix}/{_ARTIFACTS}"
        begun = self._call("POST", path, params={"mount": layer.digest, "from": origin})
        if begun.status_code == 201:
            return
        self._expect(begun, {202}, f"mount {layer.digest}")
        with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as content:
            for chunk in self.read_layer(layer.digest):
                content.write(chunk)
            self._finish_upload(begun, layer, content)

    def _tagged(self, repository: str, tag: str) -> str | None:
        content = self._get_manifest(repository, tag, accept=f"{MANIFEST_TYPE}, {INDEX_TYPE}")
        return None if content is None else sha256_digest(content)

    def _fallback_index(self, subject: str) -> list[dict[str, Any]]:
        """The referrers of the tag schema (distribution-spec v1.1, "Referrers Tag Schema")."""
        tag = subject.replace(":", "-")
        content = self._get_manifest(_ARTIFACTS, tag, accept=INDEX_TYPE)
        if content is None:
            return []
        entries = _json(content).get("manifests")
        return [entry for entry in entries or [] if isinstance(entry, dict) and "digest" in entry]

    def _list_referrer(self, subject: str, artifact: StoredArtifact, *, size: int) -> None:
        """Add to the tag schema's index; racing writers overwrite each other, so look again."""
        entry = encode_descriptor(Descriptor(MANIFEST_TYPE, artifact.digest, size))
        entry["artifactType"] = artifact.artifact_type
        for _ in range(_REFERRER_RETRIES):
            entries = self._fallback_index(subject)
            if any(item["digest"] == artifact.digest for item in entries):
                return
            index: dict[str, Any] = {
                "schemaVersion": 2,
                "mediaType": INDEX_TYPE,
                "manifests": [*entries, entry],
            }
            tag = subject.replace(":", "-")
            self._put_manifest(_ARTIFACTS, tag, rfc8785.dumps(index), INDEX_TYPE)
        if not any(item["digest"] == artifact.digest for item in self._fallback_index(subject)):
            raise RegistryUnavailable(f"the index of what refers to {subject} is contended.")

    def _get_manifest(self, repository: str, reference: str, *, accept: str) -> bytes | None:
        path = self._path(repository, "manifests", reference)
        answer = self._call("GET", path, headers={"Accept": accept})
        if answer.status_code == 404:
            return None
        self._expect(answer, {200}, f"read {reference}")
        if len(answer.content) > MANIFEST_MAX_BYTES:
            raise RegistryError(f"the manifest {reference} is over {MANIFEST_MAX_BYTES} bytes.")
        return answer.content

    def _put_manifest(
        self, repository: str, reference: str, content: bytes, media_type: str
    ) -> httpx.Response:
        path = self._path(repository, "manifests", reference)
        answer = self._call("PUT", path, headers={"Content-Type": media_type}, body=content)
        return self._expect(answer, {201}, f"take the manifest {reference}")

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        """Each page of a listing; none where the registry does not know the listing."""
        target: str | None = path
        for _ in range(_PAGES_MAX):
            if target is None:
                return
            answer = self._call("GET", target)
            # 400, 404, 405: registries without the referrers API use all three.
            if answer.status_code in (400, 404, 405):
                return
            self._expect(answer, {200}, "list")
            yield _json(answer.content)
            following = answer.links.get("next", {}).get("url")
            target = str(answer.url.join(following)) if following else None
        raise RegistryError("the registry's listing has no end.")

    def _path(self, repository: str, *rest: str) -> str:
        return f"{self._base_url}/v2/{self._prefix}/{repository}/{'/'.join(rest)}"

    @contextlib.contextmanager
    def _streaming(self, path: str, digest: str) -> Iterator[httpx.Response]:
        # The HEAD finds out about a missing blob and fetches the token the stream needs.
        head = self._call("HEAD", path)
        if head.status_code == 404:
            raise ArtifactNotFound(f"no layer {digest} in the registry.")
        self._expect(head, {200}, f"read {digest}")
        with (
            self._reporting(),
            self._open().stream(
                "GET", path, headers=self._authorization("GET", path), follow_redirects=True
            ) as answer,
        ):
            self._expect(answer, {200}, f"read {digest}")
            yield answer

    def _call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: bytes | IO[bytes] | None = None,
    ) -> httpx.Response:
        """One request, repeated once with a token when the registry asks for one."""
        for attempt in range(2):
            sent = {**(headers or {}), **self._authorization(method, url)}
            with self._reporting():
                answer = self._open().request(
                    method,
                    url,
                    headers=sent,
                    params=params,
                    content=_replayable(body),
                    follow_redirects=method in ("GET", "HEAD"),
                )
            if answer.status_code != 401 or attempt or not self._log_in(method, answer):
                break
        return answer

    def _authorization(self, method: str, url: str) -> dict[str, str]:
        # Credentials go to the registry alone, never to a host it redirects an upload to.
        if httpx.URL(url).host != httpx.URL(self._base_url).host:
            return {}
        token = self._tokens.get(_scope_key(method, url))
        if token:
            return {"Authorization": f"Bearer {token}"}
        if self._credentials and not self._tokens:
            pair = ":".join(self._credentials).encode()
            return {"Authorization": "Basic " + base64.b64encode(pair).decode()}
        return {}

    def _log_in(self, method: str, answer: httpx.Response) -> bool:
        """Fetch the token a 401 asks for (distribution-spec's token scheme)."""
        scheme, _, rest = answer.headers.get("www-authenticate", "").partition(" ")
        asked = dict(_TOKEN_PATTERN.findall(rest))
        realm = asked.pop("realm", "")
        if scheme.lower() != "bearer" or not realm:
            return False
        if realm.startswith("http:") and not self._base_url.startswith("http:"):
            return False  # no credential over a plain connection unless asked for
        with self._reporting():
            granted = self._open().get(realm, params=asked, auth=self._credentials)
        if granted.status_code != 200:
            return False
        reply = _json(granted.content)
        token = str(reply.get("token") or reply.get("access_token") or "")
        self._tokens[_scope_key(method, str(answer.request.url))] = token
        return bool(token)

    def _expect(self, answer: httpx.Response, allowed: set[int], deed: str) -> httpx.Response:
        status = answer.status_code
        if status in allowed:
            return answer
        if status in (401, 403):
            raise RegistryError(
                f"the registry would not {deed}: it answered {status}; check the user and "
                "password in REGISTRY_URL."
            )
        if status == 429 or status >= 500:
            raise RegistryUnavailable(f"the registry could not {deed}: it answered {status}.")
        raise RegistryError(f"the registry would not {deed}: it answered {status}.")

    def _open(self) -> httpx.Client:
        if self._client is None:
            self._client = httpx.Client(timeout=self._timeout, trust_env=False)
        return self._client

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise RegistryUnavailable(
                f"the registry at {self._base_url} cannot be reached: {type(error).__name__}."
            ) from error


def _scope_key(method: str, url: str) -> str:
    """Tokens are granted per repository and per reading or writing."""
    path = httpx.URL(url).path
    repository = re.split(r"/(?:blobs|manifests|tags|referrers)/", path)[0]
    return f"{'read' if method in ('GET', 'HEAD') else 'write'} {repository}"


def _replayable(body: bytes | IO[bytes] | None) -> bytes | Iterator[bytes] | None:
    if body is None or isinstance(body, bytes):
        return body
    body.seek(0)
    return iter(lambda: body.read(_CHUNK_BYTES), b"")


def _json(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RegistryError("the registry's answer is not JSON.") from error
    if not isinstance(document, dict):
        raise RegistryError("the registry's answer is not a JSON object.")
    return document
