"""Open Policy Agent over HTTP: the policy engine beyond one machine."""

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from governance.policy.base import (
    Diagnostic,
    PolicyBundle,
    PolicyError,
    PolicyPoint,
    RegoTestResult,
    TestRun,
    Verdict,
)
from governance.policy.child import LoadedPlan, content_key
from governance.policy.normalise import UnreadableInput, workload_documents
from governance.policy.regorus import RegorusPolicy, encode_input, refusal_of
from governance.policy.verdict import compose_verdict, denied

MAX_BUNDLES_ON_SERVER = 32  # the oldest is removed beyond this
PREFIX_DIGITS = 24  # of the content's SHA-256; part of a package name, so hexadecimal and short
POINTS_PACKAGE = "clearance_points"


class OpaRefused(Exception):
    """OPA is down, or will not do what it is asked; `error` is the verdict's word for it."""

    def __init__(self, error: str, text: str) -> None:
        """Keep the word and the sentence."""
        super().__init__(text)
        self.error = error
        self.text = text


@dataclass(frozen=True, slots=True)
class UploadedBundle:
    """A bundle as OPA has it: below a package prefix of its own."""

    prefix: str
    plan: LoadedPlan
    policy_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OpaFault:
    """An evaluation that OPA gave up, and the author's file and line when it named them."""

    sentence: str
    path: str = ""
    line: int = 0

    def nearest_clause(self, clauses: Sequence[Mapping[str, Any]]) -> int:
        """The index of the clause that holds the line; of the first one when none does."""
        before = [
            (clause["line"], index)
            for index, clause in enumerate(clauses)
            if clause["path"] == self.path and clause["line"] <= self.line
        ]
        return max(before)[1] if before else 0


class OpaPolicy:
    """Uploads each bundle once below a prefix of its content, and asks for one document per input.

    Parsing, naming of clauses and Rego tests stay with the embedded engine, in its sandbox: OPA's
    REST API has no word for them. Verdicts mean the same as with that engine: OPA is asked for
    strict built-in errors, so what it cannot evaluate denies.
    """

    def __init__(
        self,
        *,
        url: str,
        timeout_seconds: float = 10.0,
        parser: RegorusPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Open nothing. `url` is OPA's base address; `parser` is the sandbox that reads Rego."""
        self._url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._parser = parser or RegorusPolicy(workers=1)
        self._transport = transport
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._uploaded: OrderedDict[str, UploadedBundle] = OrderedDict()

    def evaluate(
        self, bundle: PolicyBundle, point: PolicyPoint, inputs: Sequence[Mapping[str, Any]]
    ) -> list[Verdict]:
        """One verdict per input, in order; OPA down or unwilling denies."""
        return [self._judge(bundle, point, given) for given in inputs]

    def check(self, bundle: PolicyBundle) -> list[Diagnostic]:
        """Parse and compile errors, from the embedded engine. Raises `PolicyError`."""
        return self._parser.check(bundle)

    def run_tests(self, bundle: PolicyBundle) -> list[RegoTestResult]:
        """Run every `test_*` rule in the embedded engine. Raises `PolicyError`."""
        return self._parser.run_tests(bundle)

    def cover_tests(self, bundle: PolicyBundle) -> TestRun:
        """The same with coverage, in the embedded engine. Raises `PolicyError`."""
        return self._parser.cover_tests(bundle)

    def close(self) -> None:
        """Close connections and the parser's children; the engine may be used again."""
        with self._lock:
            client, self._client = self._client, None
            self._uploaded.clear()
        if client is not None:
            client.close()
        self._parser.close()

    def _judge(self, bundle: PolicyBundle, point: PolicyPoint, given: Mapping[str, Any]) -> Verdict:
        started = time.monotonic()
        try:
            encoded = encode_input(given, point=point)
        except ValueError as error:
            return denied("invalid", f"The input cannot be judged: {error}.", engine="opa")
        try:
            uploaded = self._upload(bundle)
            refusal = refusal_of(uploaded.plan, point, "opa")
            return refusal or self._ask_all(uploaded, bundle, point, encoded, started)
        except PolicyError as error:
            return denied("crash", str(error), engine="opa", seconds=time.monotonic() - started)
        except OpaRefused as refused:
            text = f"The policy could not be evaluated: {refused.text}."
            seconds = time.monotonic() - started
            return denied(refused.error, text, engine="opa", seconds=seconds)

    def _ask_all(
        self,
        uploaded: UploadedBundle,
        bundle: PolicyBundle,
        point: PolicyPoint,
        encoded: bytes,
        started: float,
    ) -> Verdict:
        documents = [json.loads(encoded)]
        if point is PolicyPoint.WORKLOAD:
            parameters = bundle.data.get("parameters", {})
            try:
                documents = workload_documents(documents[0], parameters=parameters)
            except (UnreadableInput, RecursionError) as error:
                return denied("invalid", f"The input cannot be judged: {error}.", engine="opa")
        clauses = uploaded.plan.clauses(point.value)
        hits: list[tuple[int, object]] = []
        faults: list[tuple[int, str]] = []
        for document in documents:
            answer = self._ask(uploaded, bundle, point, document)
            if isinstance(answer, OpaFault):
                faults.append((answer.nearest_clause(clauses), answer.sentence))
                continue
            hits += [(int(index), value) for index, said in answer.items() for value in said]
        seconds = time.monotonic() - started
        return compose_verdict(clauses, hits=hits, faults=faults, engine="opa", seconds=seconds)

    def _ask(
        self,
        uploaded: UploadedBundle,
        bundle: PolicyBundle,
        point: PolicyPoint,
        document: Mapping[str, Any],
    ) -> "dict[str, list[object]] | OpaFault":
        """What each clause said by its index, or the error of a built-in."""
        path = f"/v1/data/{uploaded.prefix}/{POINTS_PACKAGE}/{point.value}"
        query = "?strict-builtin-errors=true&metrics=false&provenance=false"
        for _ in range(2):
            response = self._send("POST", path + query, json={"input": document})
            if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                return _fault(response, uploaded)
            answer = self._content(response)
            if "result" in answer:
                result: dict[str, list[object]] = answer["result"]
                return result
            # OPA forgot it, as it does when it restarts: tell it again, once.
            with self._lock:
                self._uploaded.pop(uploaded.plan.key, None)
            uploaded = self._upload(bundle)
        raise OpaRefused("missing", "OPA does not have the bundle although it took it")

    def _upload(self, bundle: PolicyBundle) -> UploadedBundle:
        try:
            key = content_key(bundle)
        except (TypeError, ValueError, RecursionError) as error:
            raise OpaRefused("invalid", f"the bundle's data is not JSON ({error})") from error
        with self._lock:
            known = self._uploaded.get(key)
            if known is not None:
                self._uploaded.move_to_end(key)
                return known
        prefix = f"bundle_{key[:PREFIX_DIGITS]}"
        plan = self._parser.describe(bundle, prefix=prefix)
        uploaded = UploadedBundle(prefix, plan, ())
        if not plan.diagnostics:
            uploaded = UploadedBundle(prefix, plan, self._put_all(prefix, plan, bundle))
        with self._lock:
            self._uploaded[key] = uploaded
            oldest = [
                self._uploaded.popitem(last=False)[1]
                for _ in range(len(self._uploaded) - MAX_BUNDLES_ON_SERVER)
            ]
        for forgotten in oldest:
            self._remove(forgotten)
        return uploaded

    def _put_all(self, prefix: str, plan: LoadedPlan, bundle: PolicyBundle) -> tuple[str, ...]:
        """Put data, modules and the document per point, each under a name that repeats safely."""
        self._content(self._send("PUT", f"/v1/data/{prefix}", json=dict(bundle.data)))
        texts = {}
        for module in plan.answer["portable"]:
            name = quote(f"{prefix}/{module['path']}", safe="/")
            texts[name] = module["text"]
            if module["derived"]:
                texts[f"{name}.clauses"] = module["derived"]
        texts[f"{prefix}/points.rego"] = _points_module(prefix, plan)
        # OPA compiles after each one and refuses a call of what it has not got yet: take rounds,
        # as long as each round brings something in.
        waiting = dict(texts)
        accepted: list[str] = []
        while waiting:
            refused = self._put_round(waiting)
            if len(refused) == len(waiting):
                policy_id, problem = next(iter(refused.items()))
                raise OpaRefused("invalid", f"OPA refuses {policy_id}: {problem}")
            accepted += [policy_id for policy_id in waiting if policy_id not in refused]
            waiting = {policy_id: waiting[policy_id] for policy_id in refused}
        return tuple(accepted)

    def _put_round(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Put each policy; what OPA refused, with its reason."""
        refused = {}
        for policy_id, text in texts.items():
            response = self._send("PUT", f"/v1/policies/{policy_id}", content=text.encode())
            if response.status_code == httpx.codes.BAD_REQUEST:
                refused[policy_id] = _problem(response)
            else:
                self._content(response)
        return refused

    def _remove(self, forgotten: UploadedBundle) -> None:
        """Take a bundle off the server, users before what they use; a leftover does no harm."""
        for policy_id in reversed(forgotten.policy_ids):
            self._send("DELETE", f"/v1/policies/{policy_id}")
        self._send("DELETE", f"/v1/data/{forgotten.prefix}")

    def _send(self, method: str, path: str, **body: Any) -> httpx.Response:
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(
                    base_url=self._url,
                    timeout=self._timeout_seconds,
                    transport=self._transport,
                    trust_env=False,
                )
            client = self._client
        try:
            return client.request(method, path, **body)
        except httpx.TimeoutException as error:
            seconds = self._timeout_seconds
            raise OpaRefused("timeout", f"OPA gave no answer within {seconds:g} s") from error
        except httpx.HTTPError as error:
            reason = type(error).__name__
            text = f"OPA at POLICY_URL cannot be reached ({reason}): is it running?"
            raise OpaRefused("crash", text) from error

    @staticmethod
    def _content(response: httpx.Response) -> dict[str, Any]:
        if response.is_error:
            text = f"OPA answered {response.status_code}: {_problem(response)}"
            raise OpaRefused("crash", text)
        try:
            content = response.json() if response.content else {}
        except ValueError as error:
            raise OpaRefused("crash", "OPA's answer is not JSON: is POLICY_URL an OPA?") from error
        return content if isinstance(content, dict) else {}


def _points_module(prefix: str, plan: LoadedPlan) -> str:
    """One document per point: clause index to what the clause said, nothing when undefined."""
    lines = [f"package {prefix}.{POINTS_PACKAGE}", "", "import rego.v1", ""]
    for point in PolicyPoint:
        clauses = plan.clauses(point.value)
        if not clauses:
            continue
        entries = [
            f'\t"{index}": [said | said := data.{prefix}.{clause["query"].removeprefix("data.")}],'
            for index, clause in enumerate(clauses)
        ]
        lines += [f"{point.value} := {{", *entries, "}", ""]
    return "\n".join(lines)


def _fault(response: httpx.Response, uploaded: UploadedBundle) -> OpaFault:
    try:
        content = response.json()
        errors = content.get("errors") or [{}]
        place = errors[0].get("location") or {}
        sentence = str(errors[0].get("message") or content.get("message"))
    except (ValueError, AttributeError):
        return OpaFault("OPA answered 500 without a reason")
    offsets = {module["path"]: module["offset"] for module in uploaded.plan.answer["portable"]}
    path = str(place.get("file", "")).removeprefix(f"{uploaded.prefix}/").removesuffix(".clauses")
    if path not in offsets:
        return OpaFault(sentence)
    line = max(int(place.get("row", 1)) - offsets[path], 1)
    return OpaFault(f"{sentence} (at {path}:{line})", path, line)


def _problem(response: httpx.Response) -> str:
    try:
        content = response.json()
    except ValueError:
        return response.text[:200]
    errors = content.get("errors") if isinstance(content, dict) else None
    if errors:
        place = errors[0].get("location") or {}
        return f"line {place.get('row', '?')}: {errors[0].get('message')}"
    return str(content.get("message", ""))[:200] if isinstance(content, dict) else ""
