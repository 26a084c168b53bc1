"""The policy sandbox: a child process that alone imports regorus and answers over its pipes.

Run as `python -m governance.policy.sandbox <memory bytes> <cpu seconds> <parent pid>`. It reads
requests from file 0 and writes one answer per item to file 1; asked with `each`, as soon as it has
it, so that its parent knows which item was in hand when it dies. It imports nothing of Django.
"""

import functools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import regorus

from governance.policy import instrument
from governance.policy.base import PolicyPoint
from governance.policy.confinement import EXIT_MEMORY, confine, limit_cpu
from governance.policy.normalise import (
    UnreadableInput,
    workload_documents,
)
from governance.policy.pipes import FLUSH_BYTES, read_frame, write_answer, write_whole
from governance.policy.wire import pack_frame

MAX_HITS_BYTES = 8 << 20  # messages of one decision; a policy that says more is refused
FLUSH_SECONDS = 0.005  # answers wait this long for others, to spare the parent wake-ups
_UNDEFINED = '"<undefined>"'
_LOCATION = re.compile(r"-->\s*(?P<path>.*?):(?P<line>\d+):(?P<column>\d+)")
_UNKNOWN_FUNCTION = "could not find function"


class BadBundle(Exception):
    """A module does not parse or compile; `diagnostics` says where."""

    def __init__(self, diagnostics: list[dict[str, Any]]) -> None:
        """Keep the diagnostics."""
        super().__init__(diagnostics[0]["text"])
        self.diagnostics = diagnostics


class LoadedBundle:
    """Modules parsed, instrumented and compiled once, cloned for every input."""

    def __init__(self, modules: list[list[str]], data: Mapping[str, Any]) -> None:
        """Parse and compile. Raises `BadBundle`."""
        self.data = data
        self.syntaxes = parse_modules(modules)
        self.clauses: dict[str, list[instrument.Clause]] = {}
        for point in PolicyPoint:
            self.clauses[point.value] = [
                clause
                for syntax in self.syntaxes
                if instrument.speaks_at(syntax.package, point)
                for clause, _ in instrument.find_clauses(syntax)
                if point is PolicyPoint.WORKLOAD or not clause.rule.endswith(".violation")
            ]
        self.engine = self._build(with_tests=False)
        self._tests: Any = None
        compile_engine(self.engine, self.syntaxes)

    @property
    def test_engine(self) -> Any:
        """The modules as written, tests among them, without derived names."""
        if self._tests is None:
            self._tests = self._build(with_tests=True)
        return self._tests

    def test_rules(self) -> list[dict[str, Any]]:
        """Every `test_*` rule once, at its first clause."""
        found: dict[str, dict[str, Any]] = {}
        for syntax in self.syntaxes:
            for rule in syntax.rules:
                if rule.name.startswith("test_") and rule.kind != "Func":
                    name = f"{syntax.package}.{rule.name}"
                    line = syntax.line(rule.line)
                    found.setdefault(name, {"rule": name, "path": syntax.path, "line": line})
        return list(found.values())

    def _build(self, *, with_tests: bool) -> Any:
        engine = new_engine()
        for syntax in self.syntaxes:
            if syntax.is_test and not with_tests:
                continue
            engine.set_rego_v0(not syntax.is_v1)
            edits = instrument.alias_edits(syntax)
            source = instrument.apply_edits(syntax.text, edits).decode()
            engine.add_policy(syntax.path, source)
            derived = "" if with_tests else instrument.derived_source(syntax, edits=edits)
            if derived:
                engine.add_policy(syntax.path, derived)
        try:
            engine.add_data_json(json.dumps(self.data))
        except RuntimeError as error:
            raise BadBundle([diagnostic(error, self.syntaxes, path="data.json")]) from error
        return engine


def new_engine() -> Any:
    """An engine whose `print` calls stay inside it."""
    engine = regorus.Engine()
    engine.set_gather_prints(True)
    return engine


def parse_modules(modules: list[list[str]]) -> list[instrument.ModuleSyntax]:
    """Each module on its own, v1 or v0. Raises `BadBundle` with one diagnostic per bad module."""
    problems = []
    parsed = []
    seen: set[str] = set()
    for path, source in modules:
        if path in seen:
            problems.append({"path": path, "line": 1, "column": 1, "text": "path is used twice"})
            continue
        seen.add(path)
        try:
            parsed.append(parse_module(path, source))
        except RuntimeError as error:
            _, offset = instrument.parsable_source(source)
            problems.append(diagnostic(error, [], path=path, line_offset=offset))
    if problems:
        raise BadBundle(problems)
    return parsed


def parse_module(path: str, source: str) -> instrument.ModuleSyntax:
    """The syntax of a module: v1 if it says so, else v0, else v1. Raises `RuntimeError`."""
    text, offset = instrument.parsable_source(source)
    errors: dict[bool, RuntimeError] = {}
    for is_v0 in (False,) if instrument.says_v1(source) else (True, False):
        engine = new_engine()
        engine.set_rego_v0(is_v0)
        try:
            engine.add_policy(path, text)
        except RuntimeError as error:
            errors[is_v0] = error
            continue
        tree = json.loads(engine.get_ast_as_json())[0]["ast"]
        return instrument.read_syntax(path, text, {**tree, "rego_v1": not is_v0}, offset)
    raise errors[not instrument.looks_v1(source)]


def compile_engine(engine: Any, syntaxes: list[instrument.ModuleSyntax]) -> None:
    """Have the engine resolve what it can before any input. Raises `BadBundle`."""
    # On the engine itself, not on a clone: what is resolved here need not be for each input.
    engine.set_input({})
    try:
        engine.eval_query_as_json("true")
    except RuntimeError as error:
        raise BadBundle([diagnostic(error, syntaxes)]) from error


def plain_error(error: BaseException) -> str:
    """The sentence of a regorus error, without its picture of the source or a stack."""
    text = str(error).split("Stack backtrace:")[0].strip()
    _, mark, sentence = text.rpartition("error:")
    return (sentence if mark else text).strip()[:2000]


def diagnostic(
    error: BaseException,
    syntaxes: list[instrument.ModuleSyntax],
    *,
    path: str = "",
    line_offset: int = 0,
) -> dict[str, Any]:
    """Where and what, in the author's lines."""
    match = _LOCATION.search(str(error))
    where = match["path"] if match else path
    for syntax in syntaxes:
        if syntax.path == where:
            line_offset = syntax.line_offset
    return {
        "path": where,
        "line": max(int(match["line"]) - line_offset, 1) if match else 1,
        "column": int(match["column"]) if match else 1,
        "text": plain_error(error),
    }


def judge(bundle: LoadedBundle, point: PolicyPoint, payload: bytes) -> dict[str, Any]:
    """Evaluate one input: `hits` and `faults` as (clause index, value or text) pairs."""
    started = time.perf_counter()
    answer: dict[str, Any] = {"hits": [], "faults": [], "error": ""}
    try:
        if point is PolicyPoint.WORKLOAD:
            parameters = bundle.data.get("parameters", {})
            for document in workload_documents(json.loads(payload), parameters=parameters):
                judge_document(bundle, point, document, answer)
        else:
            judge_document(bundle, point, payload.decode(), answer)
    except UnreadableInput as error:
        answer["error"] = str(error)
    except RecursionError:
        answer["error"] = "the input is nested too deeply"
    answer["seconds"] = time.perf_counter() - started
    return answer


def engine_about(bundle: LoadedBundle, document: dict[str, Any] | str) -> Any:
    """A fresh engine with this input, an object or the JSON text of one."""
    engine = bundle.engine.clone()
    if isinstance(document, str):
        engine.set_input_json(document)
    else:
        engine.set_input(document)
    return engine


def judge_document(
    bundle: LoadedBundle,
    point: PolicyPoint,
    document: dict[str, Any] | str,
    answer: dict[str, Any],
) -> None:
    """Ask every clause of the point about one document; a fault of one leaves the others."""
    engine = engine_about(bundle, document)
    size = 0
    for index, clause in enumerate(bundle.clauses[point.value]):
        try:
            value = engine.eval_rule_as_json(clause.query)
        except RuntimeError as error:
            where = diagnostic(error, bundle.syntaxes, path=clause.path)
            text = f"{where['text']} (at {where['path']}:{where['line']})"
            answer["faults"].append([index, text])
            # A failed evaluation leaves the engine's scopes as they were: take a fresh one.
            engine = engine_about(bundle, document)
            continue
        if value in ("[]", _UNDEFINED):
            continue
        size += len(value)
        if size > MAX_HITS_BYTES:
            answer["faults"].append([index, f"says more than {MAX_HITS_BYTES} bytes"])
            return
        answer["hits"].append([index, json.loads(value)])


def run_test(
    bundle: LoadedBundle, payload: bytes, *, with_coverage: bool = False
) -> dict[str, Any]:
    """Evaluate one test rule; it passes when it is true."""
    started = time.perf_counter()
    engine = bundle.test_engine.clone()
    engine.set_input({})
    if with_coverage:
        engine.set_enable_coverage(True)
    try:
        value = engine.eval_rule_as_json(f"data.{json.loads(payload)}")
        passed = value not in (_UNDEFINED, "false")
        text = "" if passed else "not true"
    except RuntimeError as error:
        where = diagnostic(error, bundle.syntaxes)
        passed, text = False, f"{where['text']} (at {where['path']}:{where['line']})"
    seconds = time.perf_counter() - started
    answer = {"passed": passed, "text": text, "seconds": seconds}
    return {**answer, "lines": covered_lines(bundle, engine)} if with_coverage else answer


def covered_lines(bundle: LoadedBundle, engine: Any) -> dict[str, list[list[int]]]:
    """By path: the author's lines on which something was evaluated, and those where nothing was."""
    syntaxes = {syntax.path: syntax for syntax in bundle.syntaxes}
    return {
        file["path"]: [
            [syntaxes[file["path"]].line(line) for line in file[kind]]
            for kind in ("covered", "not_covered")
        ]
        for file in json.loads(engine.get_coverage_report_as_json())["files"]
        if file["path"] in syntaxes
    }


def unknown_functions(bundle: LoadedBundle) -> list[dict[str, Any]]:
    """Calls of functions that neither the bundle nor the engine has (seen only when reached)."""
    own = {
        f"{prefix}{rule.name}"
        for syntax in bundle.syntaxes
        for rule in syntax.rules
        for prefix in ("", f"data.{syntax.package}.")
    }
    found = []
    for syntax in bundle.syntaxes:
        for name, line, column in calls(syntax):
            if name in own or name.startswith("data.") or _is_imported(syntax, name):
                continue
            if not is_builtin(name):
                where = {"path": syntax.path, "line": syntax.line(line), "column": column}
                found.append({**where, "text": f"unknown function {name}"})
    return found


@functools.cache
def is_builtin(name: str) -> bool:
    """Whether the engine has such a function: it has no list, so it is asked to call it."""
    try:
        new_engine().eval_query_as_json(f"{name}()")
    except RuntimeError as error:
        return _UNKNOWN_FUNCTION not in str(error)
    return True


def _is_imported(syntax: instrument.ModuleSyntax, name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in syntax.aliases


def calls(syntax: instrument.ModuleSyntax) -> list[tuple[str, int, int]]:
    """Name, line and column (as parsed) of every call in a module."""
    found = []
    stack: list[Any] = [rule.tree for rule in syntax.rules]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            call = item.get("Call")
            if isinstance(call, dict) and isinstance(call.get("fcn"), dict):
                name = ".".join(instrument.reference_parts(call["fcn"]))
                found.append((name, call["span"]["line"], call["span"]["col"]))
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return sorted(found, key=lambda call: (call[1], call[2]))


class Sandbox:
    """Answers requests until its input ends."""

    def __init__(self, cpu_seconds: int) -> None:
        """Start with no bundle."""
        self._bundles: dict[str, LoadedBundle] = {}
        self._cpu_seconds = cpu_seconds

    def serve(self) -> None:
        """Read, answer, repeat; returns at the end of the input."""
        while (header := read_frame()) is not None:
            request = json.loads(header)
            if request["op"] == "load":
                limit_cpu(self._cpu_seconds)
                write_answer(self._load(request))
                continue
            if not self._answer_items(request):
                return

    def _answer_items(self, request: Mapping[str, Any]) -> bool:
        """Answer each item, several in one write unless `each`; False at the end of the input."""
        bundle = self._bundles[request["bundle"]]
        waiting = bytearray()
        written_at = time.monotonic()
        for _ in range(request["count"]):
            payload = read_frame()
            if payload is None:
                return False
            limit_cpu(self._cpu_seconds)
            waiting += pack_frame(json.dumps(self._answer(bundle, request, payload)).encode())
            now = time.monotonic()
            is_due = now - written_at > FLUSH_SECONDS or len(waiting) > FLUSH_BYTES
            if request["each"] or is_due:
                write_whole(waiting)
                waiting.clear()
                written_at = now
        write_whole(waiting)
        return True

    def _load(self, request: Mapping[str, Any]) -> dict[str, Any]:
        for key in request["evict"]:
            self._bundles.pop(key, None)
        try:
            bundle = LoadedBundle(request["modules"], request["data"])
        except BadBundle as error:
            return {"diagnostics": error.diagnostics}
        self._bundles[request["bundle"]] = bundle
        answer: dict[str, Any] = {
            "diagnostics": [],
            "clauses": {
                point: [clause.as_json() for clause in clauses]
                for point, clauses in bundle.clauses.items()
            },
        }
        if request["detail"]:
            answer["unknown_functions"] = unknown_functions(bundle)
            answer["tests"] = bundle.test_rules()
            answer["portable"] = portable_modules(bundle, request["prefix"])
        return answer

    def _answer(
        self, bundle: LoadedBundle, request: Mapping[str, Any], payload: bytes
    ) -> dict[str, Any]:
        if request["op"] == "test":
            return run_test(bundle, payload, with_coverage=request["coverage"])
        return judge(bundle, PolicyPoint(request["point"]), payload)


def portable_modules(bundle: LoadedBundle, prefix: str) -> list[dict[str, Any]]:
    """Each judging module and its derived twin as OPA 1.x reads them, below `prefix`."""
    modules = []
    for syntax in bundle.syntaxes:
        if syntax.is_test or not prefix:
            continue
        edits = instrument.portable_edits(syntax, prefix=prefix)
        text = instrument.apply_edits(syntax.text, edits).decode()
        derived = instrument.derived_source(syntax, edits=edits)
        modules.append(
            {
                "path": syntax.path,
                "package": syntax.package,
                "is_v1": syntax.is_v1,
                "text": text,
                "derived": derived,
                "offset": syntax.line_offset + 1,
            }
        )
    return modules


def engine_name() -> str:
    """`regorus/<version>` of whichever distribution carries the binding."""
    for distribution in ("gordon-to-regorus", "celine-regorus", "regorus"):
        try:
            return f"regorus/{version(distribution)}"
        except PackageNotFoundError:
            continue
    return "regorus"


def main() -> NoReturn:
    """Confine this process, say ready, serve, end."""
    memory_bytes, cpu_seconds, parent = (int(word) for word in sys.argv[1:4])
    confine(memory_bytes, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    write_answer({"engine": engine_name()})
    try:
        Sandbox(cpu_seconds).serve()
    except MemoryError:
        os._exit(EXIT_MEMORY)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(0)
    sys.exit(0)


if __name__ == "__main__":
    main()
