"""Policy drafts: what a person typed, read within limits, judged apart and saved as a version."""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from django.conf import settings

from governance.access import NotAllowed, Principal
from governance.domain import GovernanceError, Permission
from governance.models import BundleVersion
from governance.policy import policy_engine_from
from governance.policy.base import (
    Diagnostic,
    PolicyBundle,
    PolicyEngine,
    PolicyError,
    PolicyModule,
    PolicyPoint,
    TestRun,
    Verdict,
)
from governance.policy.bundle import build_bundle
from governance.policy.regorus import RegorusPolicy
from governance.services.bundles import save_bundle

DATA_FILE = "data.json"  # where people see a bundle's data, and the engine's errors place it
MAX_FILES = 100
MAX_FILE_BYTES = 256 << 10
MAX_DRAFT_BYTES = 1 << 20  # a form of it, percent-encoded, stays below what Django reads
NAME_MAX = 63  # the column's
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RESERVED_NAMES = frozenset({"new"})  # a page of its own
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\.rego")
PATH_MAX = 128
# Half of what a decision may take: a person waits for these answers, key by key.
EDITING_SECONDS = 2.0
EDITING_CPU_SECONDS = 2
EDITING_MEMORY_BYTES = 256 << 20


class DraftInvalid(GovernanceError):
    """A draft that cannot be judged or saved; `diagnostics` say where."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        """Keep the diagnostics; the text is the first of them."""
        first = diagnostics[0]
        super().__init__(f"{first.path}:{first.line}:{first.column}: {first.text}")
        self.diagnostics = tuple(diagnostics)


class BundleConflict(GovernanceError):
    """Somebody changed the bundle meanwhile; the text says who and what to look at."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A bundle that is not saved: its modules and its data."""

    modules: tuple[PolicyModule, ...]
    parameters: Mapping[str, Any]

    @property
    def bundle(self) -> PolicyBundle:
        """The bundle as the engine takes it, named by its own digest."""
        return build_bundle(self.modules, data=self.parameters)


@functools.cache
def get_editing_engine() -> PolicyEngine:
    """An engine for drafts alone, so that none of them keeps a decision waiting."""
    if settings.POLICY_URL.partition(":")[0] != "regorus":
        return policy_engine_from(settings.POLICY_URL)
    return RegorusPolicy(
        timeout_seconds=EDITING_SECONDS,
        cpu_seconds=EDITING_CPU_SECONDS,
        memory_bytes=EDITING_MEMORY_BYTES,
    )


def require_reviewer(principal: Principal) -> None:
    """Raise NotAllowed unless this person may try policies out (nothing of it takes effect)."""
    needed = (Permission.AUTHOR_POLICY, Permission.APPROVE, Permission.AUDIT)
    if not any(_holds_somewhere(principal, permission) for permission in needed):
        whom = principal.whom_to_ask(Permission.ADMINISTER)
        raise NotAllowed(
            f"Trying a policy out needs the role policy_author, approver, auditor or admin; {whom}"
        )


def require_author(principal: Principal) -> None:
    """Raise NotAllowed unless this person may save versions (a draft judges nothing)."""
    if not _holds_somewhere(principal, Permission.AUTHOR_POLICY):
        whom = principal.whom_to_ask(Permission.AUTHOR_POLICY)
        raise NotAllowed(f"Saving a policy needs the role policy_author or admin; {whom}")


def _holds_somewhere(principal: Principal, permission: Permission) -> bool:
    spaces = principal.namespaces(permission)
    return spaces is None or bool(spaces)


def draft_of(version: BundleVersion) -> Draft:
    """A saved version as a draft."""
    modules = tuple(PolicyModule(m["path"], m["source"]) for m in version.modules)
    return Draft(modules, version.parameters)


def read_draft(files: Sequence[tuple[str, str]]) -> Draft:
    """The draft in (path, text) pairs, `data.json` among them. Raises DraftInvalid.

    Line ends become `\\n`, as forms send `\\r\\n` for what was `\\n`.
    """
    problems: list[Diagnostic] = []
    modules: list[PolicyModule] = []
    parameters: dict[str, Any] = {}
    texts = [(path.strip(), text.replace("\r\n", "\n")) for path, text in files]
    problems += _size_problems(texts)
    seen: set[str] = set()
    for path, text in texts:
        if path in seen:
            problems.append(Diagnostic(path, 1, 1, "another file has this path"))
        elif path == DATA_FILE:
            try:
                parameters = _read_data(text)
            except _BadData as error:
                problems.append(Diagnostic(path, error.line, error.column, str(error)))
        elif problem := _path_problem(path) or _text_problem(text):
            problems.append(Diagnostic(path[:PATH_MAX], 1, 1, problem))
        else:
            modules.append(PolicyModule(path, text))
        seen.add(path)
    if not modules and not problems:
        problems.append(Diagnostic("", 1, 1, "a bundle needs at least one .rego file"))
    if problems:
        raise DraftInvalid(problems)
    return _checked(Draft(tuple(modules), parameters))


def _checked(draft: Draft) -> Draft:
    try:
        _ = draft.bundle
    except (ValueError, RecursionError) as error:
        text = f"the data cannot be written as JSON ({error})"
        raise DraftInvalid([Diagnostic(DATA_FILE, 1, 1, text)]) from error
    return draft


class _BadData(Exception):
    def __init__(self, text: str, *, line: int = 1, column: int = 1) -> None:
        super().__init__(text)
        self.line, self.column = line, column


def _read_data(text: str) -> dict[str, Any]:
    if problem := _text_problem(text):
        raise _BadData(problem)
    if not text.strip():
        return {}
    try:
        found = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise _BadData(error.msg, line=error.lineno, column=error.colno) from error
    except RecursionError as error:
        raise _BadData("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise _BadData("the data must be a JSON object")
    if "\\u0000" in json.dumps(found):
        raise _BadData("the character U+0000 cannot be kept")
    return found


def _refuse_constant(word: str) -> None:
    raise _BadData(f"{word} is not JSON")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _BadData("an object has the same key twice")
    return found


def _size_problems(texts: Sequence[tuple[str, str]]) -> list[Diagnostic]:
    if len(texts) > MAX_FILES:
        return [Diagnostic("", 1, 1, f"{len(texts)} files, at most {MAX_FILES} make a bundle")]
    sizes = {path: len(text.encode("utf-8", "surrogatepass")) for path, text in texts}
    found = [
        Diagnostic(path[:PATH_MAX], 1, 1, f"{size} bytes, at most {MAX_FILE_BYTES} in a file")
        for path, size in sizes.items()
        if size > MAX_FILE_BYTES
    ]
    if sum(sizes.values()) > MAX_DRAFT_BYTES:
        total = f"{sum(sizes.values())} bytes in all, at most {MAX_DRAFT_BYTES} make a bundle"
        found.append(Diagnostic("", 1, 1, total))
    return found


def _path_problem(path: str) -> str:
    if len(path) > PATH_MAX or not _PATH.fullmatch(path):
        return (
            f"a path is letters, digits, _ . - and / and ends in .rego, at most {PATH_MAX} "
            f"characters (data stands in {DATA_FILE})"
        )
    return ""


def _text_problem(text: str) -> str:
    if "\x00" in text:
        return "the character U+0000 cannot be kept"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair, which is not text"
    return ""


def check_draft(draft: Draft, *, engine: PolicyEngine | None = None) -> list[Diagnostic]:
    """Parse and compile errors, each where it is; that no answer came is one of them."""
    try:
        return list((engine or get_editing_engine()).check(draft.bundle))
    except PolicyError as error:
        return [Diagnostic("", 1, 1, str(error))]


def silent_points(draft: Draft, *, engine: PolicyEngine | None = None) -> list[PolicyPoint]:
    """Points for which a good draft has no rule: enforced, it denies everything there."""
    judge, bundle = engine or get_editing_engine(), draft.bundle
    return [
        point for point in PolicyPoint if judge.evaluate(bundle, point, [{}])[0].error == "missing"
    ]


def run_draft_tests(draft: Draft, *, engine: PolicyEngine | None = None) -> TestRun:
    """Results and coverage of the draft's Rego tests. Raises DraftInvalid."""
    try:
        return (engine or get_editing_engine()).cover_tests(draft.bundle)
    except PolicyError as error:
        raise DraftInvalid([Diagnostic("", 1, 1, str(error))]) from error


def evaluate_draft(
    draft: Draft,
    point: PolicyPoint,
    document: Mapping[str, Any],
    *,
    engine: PolicyEngine | None = None,
) -> Verdict:
    """What the draft says to one input; nothing is recorded."""
    return (engine or get_editing_engine()).evaluate(draft.bundle, point, [document])[0]


def save_draft(
    name: str,
    draft: Draft,
    *,
    base_version: int,
    principal: Principal,
    engine: PolicyEngine | None = None,
) -> BundleVersion:
    """Check, test and sign a draft and keep it as the bundle's next version, in stage draft.

    `base_version` is the version it was made from, 0 for a new bundle. The same content again is
    the version that has it. Raises NotAllowed, DraftInvalid, BundleInvalid, BundleConflict.
    """
    require_author(principal)
    if not _NAME.fullmatch(name) or name in _RESERVED_NAMES:
        raise DraftInvalid(
            [Diagnostic("name", 1, 1, "a name is small letters, digits and -, at most 63")]
        )
    newest = BundleVersion.objects.filter(name=name).order_by("-version").first()
    known = newest.version if newest else 0
    is_same = newest is not None and newest.digest == draft.bundle.digest
    if newest is not None and known != base_version and not is_same:
        raise BundleConflict(
            f"{newest.created_by} saved version {known} of {name} meanwhile: compare with it, "
            "then save from there."
        )
    try:
        return save_bundle(
            name,
            modules=draft.modules,
            parameters=draft.parameters,
            actor=principal.actor,
            identity=f"{settings.WEB_URL}/people/{quote(principal.username)}",
            engine=engine or get_editing_engine(),
        )
    except PolicyError as error:
        raise DraftInvalid([Diagnostic("", 1, 1, str(error))]) from error
