"""One run of one task: who it is, what it may use, what it hands on."""

import hashlib
import os
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from .errors import ClearanceError
from .export import SpanSender
from .http import Call, HttpClient, query
from .identity import Identity
from .records import (
    Artifact,
    Evidence,
    Input,
    Release,
    Reservation,
    input_from,
    release_from,
)
from .tracing import Action, Cause, Observation, OwnAttributes, Recorder, span_id_of

CHUNK_BYTES = 1 << 20
JOIN_TOKEN = "CLEARANCE_JOIN_TOKEN"  # noqa: S105 - a name, no secret
TOKEN_FILE = "CLEARANCE_IDENTITY_TOKEN_FILE"  # noqa: S105 - in pods; the platform renews the file
PREDICATE_TYPES = "https://clearance.dev/evidence"  # /<name>/v1, when none is given

_current: "Attempt | None" = None


def _required(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ClearanceError(
            f"{name} is not set", detail="this program is started by Clearance, not by hand"
        )
    return value


def _base_url(name: str) -> str:
    url = _required(name).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ClearanceError(f"{name} is no http(s) URL", detail=url)
    return url


def _proof() -> dict[str, str]:
    """What the platform gave this process to prove who it is."""
    path = os.environ.get(TOKEN_FILE, "")
    if not path:
        return {"join_token": _required(JOIN_TOKEN)}
    try:
        return {"service_account_token": Path(path).read_text(encoding="ascii").strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise ClearanceError(f"{TOKEN_FILE} names no readable file", detail=str(error)) from error


def _packed(directory: Path, target: Path) -> Path:
    """An uncompressed tar of the files below `directory`, by their relative names."""
    with tarfile.open(target, mode="w") as archive:
        for file in sorted(path for path in directory.rglob("*") if path.is_file()):
            archive.add(file, arcname=file.relative_to(directory).as_posix())
    return target


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Attempt:
    """The control plane as seen from inside an attempt; made by `attempt()`."""

    def __init__(
        self, *, api_url: str, http: HttpClient, identity: Identity, provider: TracerProvider,
        sender: SpanSender,
    ) -> None:  # fmt: skip
        self._api = f"{api_url}/api/v1"
        self._http = http
        self._sender = sender
        self.identity = identity
        self.tracer = provider.get_tracer("clearance_sdk")
        self._recorder = Recorder(self.tracer)

    @cached_property
    def _self(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._http.json("GET", f"{self._api}/self")
        return found

    @property
    def objective(self) -> str:
        """The text of the Goal's objective."""
        return str(self._self["goal"]["objective"])

    @property
    def goal(self) -> Mapping[str, Any]:
        """The Goal: uid, name, objective, generation, iteration."""
        found: Mapping[str, Any] = self._self["goal"]
        return found

    @property
    def model(self) -> str | None:
        """The language model to use first (CLEARANCE_MODEL); None when the agent names none."""
        return os.environ.get("CLEARANCE_MODEL") or None

    @property
    def models(self) -> Sequence[str]:
        """The language models that may be used now, the preferred first, each next one smaller.

        Fewer than the agent lists once an approver had the Goal go on with less.
        """
        return tuple(self._self.get("models", ()))

    @property
    def inputs(self) -> Mapping[str, Input]:
        """What upstream tasks produced, by name; read once."""
        return {name: input_from(found) for name, found in self._self["inputs"].items()}

    def observe(
        self,
        metric: str,
        *,
        aggregate: str,
        value: float,
        unit: str,
        selector: str = "",
        samples: int = 0,
        because: Cause | None = None,
    ) -> Observation:
        """Record one measured value. Raises: ValueError."""
        return self._recorder.observe(
            metric,
            aggregate=aggregate,
            value=value,
            unit=unit,
            selector=selector,
            samples=samples,
            because=because,
        )

    def action(
        self, name: str, *, because: Cause | None, confidence: float
    ) -> AbstractContextManager[Action]:
        """A span for something the agent does. Raises: ValueError."""
        return self._recorder.action(name, because=because, confidence=confidence)

    def flush(self) -> None:
        """Return once every ended span is acknowledged. Raises: ClearanceError."""
        self._sender.flush()

    def push_artifact(
        self,
        path: str | os.PathLike[str],
        *,
        kind: str,
        name: str,
        because: Cause | None,
        tag: str | None = None,
        media_type: str | None = None,
    ) -> Artifact:
        """Store one file or one directory, streamed; the same bytes again give the same artifact.

        Raises: ClearanceError, OSError when the file cannot be read.
        """
        file = Path(path)
        if file.is_dir():
            with tempfile.TemporaryDirectory(prefix="clearance-") as folder:
                packed = _packed(file, Path(folder) / f"{file.name}.tar")
                return self._push_file(
                    packed, kind=kind, name=name, because=because, tag=tag, directory="true"
                )
        return self._push_file(
            file, kind=kind, name=name, because=because, tag=tag, media_type=media_type
        )

    def _push_file(
        self, file: Path, *, kind: str, name: str, because: Cause | None, **more: str | None
    ) -> Artifact:
        url = query(
            f"{self._api}/artifacts",
            kind=kind,
            name=name,
            filename=file.name,
            span_id=span_id_of(because) or None,
            **more,
        )
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(file.stat().st_size),
            "Accept": "application/json",
        }
        if "directory" not in more:  # the digest is of what is stored, and that is not the tar
            headers["X-Content-SHA256"] = _file_sha256(file)
        answer = self._http.answer(Call("POST", url, lambda: file.open("rb"), headers))
        return Artifact(
            answer["digest"], answer["blob_digest"], int(answer["size"]), bool(answer.get("signed"))
        )

    def fetch_artifact(self, digest: str, path: str | os.PathLike[str]) -> Path:
        """Write an artifact's bytes to `path`, which changes only once they are proven right.

        Raises: ClearanceError also when the bytes do not match their digest.
        """
        url = f"{self._api}/artifacts/{quote(digest, safe=':')}"
        layers = self._http.json("GET", url)["layers"]
        if len(layers) != 1:
            raise ClearanceError(
                f"{digest} has {len(layers)} layers", detail="only single files can be fetched"
            )
        wanted, target = layers[0]["digest"], Path(path)
        found = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as draft:
            try:
                with self._http.open(Call("GET", f"{url}/content")) as response:
                    while chunk := response.read(CHUNK_BYTES):
                        found.update(chunk)
                        draft.write(chunk)
                if f"sha256:{found.hexdigest()}" != wanted:
                    raise ClearanceError(
                        f"The bytes of {digest} are not what their digest says",
                        detail=f"wanted {wanted}, got sha256:{found.hexdigest()}",
                    )
                draft.flush()
                os.replace(draft.name, target)
            except BaseException:  # interrupted or not, no half file stays
                os.unlink(draft.name)
                raise
        return target

    def push_evidence(
        self,
        name: str,
        *,
        about: Sequence[str],
        predicate: Mapping[str, Any],
        because: Cause | None,
        predicate_type: str | None = None,
    ) -> Evidence:
        """Have a statement about artifacts signed and kept. Raises: ClearanceError."""
        answer = self._post(
            "evidence",
            {
                "name": name,
                "about": list(about),
                "predicate_type": predicate_type or f"{PREDICATE_TYPES}/{name}/v1",
                "predicate": dict(predicate),
                "span_id": span_id_of(because),
            },
        )
        return Evidence(answer["digest"])

    def release(
        self,
        *,
        environment: str,
        service: str,
        digest: str,
        evidence: Sequence[str],
        reason: str,
        because: Cause | None,
    ) -> Release:
        """Make an environment serve a digest.

        Raises: Denied when policy says no (`problem["messages"]` has rule, path, line and text).
        """
        answer = self._post(
            "releases",
            {
                "environment": environment,
                "service": service,
                "digest": digest,
                "evidence": list(evidence),
                "reason": reason,
                "span_id": span_id_of(because),
            },
        )
        return release_from(answer, environment=environment, service=service)

    def current_release(self, *, environment: str, service: str) -> Release | None:
        """What an environment serves now, None when nothing was released there."""
        url = query(f"{self._api}/releases/current", environment=environment, service=service)
        try:
            answer = self._http.json("GET", url)
        except ClearanceError as error:
            if error.status == 404:
                return None
            raise
        return release_from(answer, environment=environment, service=service)

    def produce(
        self, name: str, *, value: Any, because: Cause | None, digest: str | None = None
    ) -> None:
        """Hand a value to downstream tasks; the same again changes nothing."""
        self._http.json(
            "PUT",
            f"{self._api}/self/outputs/{quote(name, safe='')}",
            {"value": value, "digest": digest, "span_id": span_id_of(because)},
        )

    def reserve_tokens(self, amount: int, *, key: str) -> Reservation:
        """Set tokens aside before they are spent; one key, one effect.

        Raises: BudgetExhausted.
        """
        self._post("self/reservations", {"unit": "tokens", "amount": amount, "key": key})
        return Reservation(key, amount)

    def _post(self, path: str, document: Mapping[str, Any]) -> Any:
        # One key for all tries of one call: an answer that got lost does not do it twice.
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._http.json("POST", f"{self._api}/{path}", document, headers=headers)


@contextmanager
def attempt() -> Iterator[Attempt]:
    """Become the attempt that this process was started for.

    Exchanges the join token (and removes it from the environment), or in a pod the service account
    token that `CLEARANCE_IDENTITY_TOKEN_FILE` names, keeps the identity fresh, sets
    up OpenTelemetry's global tracer, and at the end sends the last spans.

    Raises: ClearanceError when the environment is incomplete or the control plane refuses; at the
    end also when spans cannot be delivered, unless the block itself raised.
    """
    global _current
    api_url, otlp_url = _base_url("CLEARANCE_API_URL"), _base_url("OTEL_EXPORTER_OTLP_ENDPOINT")
    proof = _proof()
    names = {
        "agent.id": _required("CLEARANCE_AGENT"),
        "goal.id": _required("CLEARANCE_GOAL_UID"),
        "task.id": _required("CLEARANCE_TASK"),
    }
    os.environ.pop(JOIN_TOKEN, None)
    identity = Identity(api_url=api_url, http=HttpClient())
    identity.exchange(proof)
    http = HttpClient(token=identity.token, renew=identity.renew)
    sender = SpanSender(endpoint=otlp_url, http=http)
    provider = TracerProvider(resource=Resource.create({"service.name": names["agent.id"]}))
    provider.add_span_processor(OwnAttributes(names))
    provider.add_span_processor(sender)
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)
    run = Attempt(api_url=api_url, http=http, identity=identity, provider=provider, sender=sender)
    outer, _current = _current, run
    try:
        yield run
    finally:
        _current = outer
        try:
            _finish(sender, is_failing=sys.exc_info()[0] is not None)
        finally:
            provider.shutdown()
            identity.close()


def _finish(sender: SpanSender, *, is_failing: bool) -> None:
    try:
        sender.flush()
    except ClearanceError as error:
        if not is_failing:
            raise
        # What ended the block matters more than the spans that could not be sent.
        print(f"clearance: {error}", file=sys.stderr)  # noqa: T201


def _now_running() -> Attempt:
    if _current is None:
        raise ClearanceError("There is no attempt", detail="use this inside `with attempt():`")
    return _current


def observe(
    metric: str,
    *,
    aggregate: str,
    value: float,
    unit: str,
    selector: str = "",
    samples: int = 0,
    because: Cause | None = None,
) -> Observation:
    """`Attempt.observe` of the attempt that runs."""
    return _now_running().observe(
        metric,
        aggregate=aggregate,
        value=value,
        unit=unit,
        selector=selector,
        samples=samples,
        because=because,
    )


def action(
    name: str, *, because: Cause | None, confidence: float
) -> AbstractContextManager[Action]:
    """`Attempt.action` of the attempt that runs."""
    return _now_running().action(name, because=because, confidence=confidence)
