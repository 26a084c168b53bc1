"""Finds the verdict clauses of a Rego module and gives each a name of its own, on its own line.

An engine merges all `deny` clauses of a package into one set. To say which clause spoke, every
clause is copied into a second module under a derived name, at its own line, with all other rules
blanked out. The originals stay as they are, so rules that refer to one another keep their meaning.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from governance.policy.base import Outcome, PolicyPoint

DEFAULT_PACKAGE = "clearance.workload"
OWN_PACKAGES = "clearance"
TEST_SUFFIX = "_test.rego"
CLAUSE_PREFIX = "clearance_clause_"
_RULE_OUTCOMES = {
    "deny": Outcome.DENY,
    "warn": Outcome.WARN,
    "require_approval": Outcome.REQUIRE_APPROVAL,
    "violation": Outcome.DENY,  # Gatekeeper's name for deny
}
_PACKAGE_LINE = re.compile(r"^[ \t]*package[ \t]", re.MULTILINE)
_V1_SIGNS = re.compile(r"^\s*import\s+rego\.v1\b", re.MULTILINE)
_V1_STYLE = re.compile(r"^[^#\n]*\b(contains\s+\S.*\bif|if)\b\s*(\{|\S)", re.MULTILINE)

Edit = tuple[int, int, bytes]  # replace bytes[start:end] by these


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause that can speak: where it is written and the path that evaluates it alone."""

    rule: str
    outcome: Outcome
    path: str
    line: int
    query: str

    def as_json(self) -> dict[str, Any]:
        """Fields by name, for the wire."""
        return {
            "rule": self.rule,
            "outcome": self.outcome.value,
            "path": self.path,
            "line": self.line,
            "query": self.query,
        }


@dataclass(frozen=True, slots=True)
class Rule:
    """One top-level rule: its name when it is a plain one, its extent in bytes, its tree."""

    name: str
    kind: str
    line: int
    start: int
    end: int
    name_span: tuple[int, int]
    tree: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModuleSyntax:
    """A parsed module: the text as the parser saw it and what was found in it."""

    path: str
    text: bytes
    line_offset: int
    package: str
    package_span: tuple[int, int]
    is_v1: bool
    imports: tuple[tuple[int, int], ...]
    aliases: Mapping[str, str]
    rules: tuple[Rule, ...]
    variables: tuple[tuple[str, int, int], ...]

    @property
    def is_test(self) -> bool:
        """Whether the module holds tests only and never judges."""
        return self.path.endswith(TEST_SUFFIX) or self.package.endswith("_test")

    def line(self, parsed_line: int) -> int:
        """A line number in the author's file for one the parser gave."""
        return max(parsed_line - self.line_offset, 1)


def parsable_source(source: str) -> tuple[str, int]:
    """The text to parse and how many lines were put before it; adds a package where none is."""
    if _PACKAGE_LINE.search(source):
        return source, 0
    return f"package {DEFAULT_PACKAGE}\n{source}", 1


def says_v1(source: str) -> bool:
    """Whether the module declares Rego v1 itself."""
    return _V1_SIGNS.search(source) is not None


def looks_v1(source: str) -> bool:
    """Whether an unparsable module was meant as v1, which decides whose error is shown."""
    return says_v1(source) or _V1_STYLE.search(source) is not None


def read_syntax(path: str, source: str, tree: Mapping[str, Any], line_offset: int) -> ModuleSyntax:
    """The syntax of one module from regorus's AST (`get_ast_as_json`, field `ast`)."""
    text = source.encode()
    package = tree["package"]
    rules = tuple(sorted((_read_rule(node) for node in tree["rules"]), key=lambda r: r.start))
    variables = tuple(sorted(set(_variables((tree["imports"], tree["rules"])))))
    return ModuleSyntax(
        path=path,
        text=text,
        line_offset=line_offset,
        package=".".join(reference_parts(package["refr"])),
        package_span=_span(package["refr"]),
        is_v1=bool(tree.get("rego_v1")),
        imports=tuple((node["span"]["start"], node["span"]["end"]) for node in tree["imports"]),
        aliases=dict(_aliases(text, tree["imports"])),
        rules=rules,
        variables=variables,
    )


def speaks_at(package: str, point: PolicyPoint) -> bool:
    """Whether the package is asked at this point.

    `clearance.<point>` and packages below it are; at the workload point so is every package that
    is not ours (plain, kube-mgmt and Gatekeeper styles).
    """
    own = f"{OWN_PACKAGES}.{point.value}"
    if package == own or package.startswith(own + "."):
        return True
    outside = package != OWN_PACKAGES and not package.startswith(OWN_PACKAGES + ".")
    return point is PolicyPoint.WORKLOAD and outside


def find_clauses(module: ModuleSyntax, *, root: str = "data") -> list[tuple[Clause, Rule]]:
    """The clauses of a module that can speak, each with its rule; none in a test module."""
    if module.is_test:
        return []
    found = []
    for index, rule in enumerate(module.rules):
        outcome = _RULE_OUTCOMES.get(rule.name)
        if outcome is None or rule.kind not in ("Set", "Compr"):
            continue
        clause = Clause(
            rule=f"{module.package}.{rule.name}",
            outcome=outcome,
            path=module.path,
            line=module.line(rule.line),
            query=f"{root}.{module.package}.{_clause_name(module, index)}",
        )
        found.append((clause, rule))
    return found


def derived_source(module: ModuleSyntax, *, edits: Sequence[Edit] = ()) -> str:
    """The second module: imports kept, each verdict clause under its own name, the rest blank."""
    speaking = {rule.start for _, rule in find_clauses(module)}
    if not speaking:
        return ""
    changes = list(edits)
    for index, rule in enumerate(module.rules):
        following = module.rules[index + 1].start if index + 1 < len(module.rules) else None
        end = len(module.text) if following is None else following
        if rule.start in speaking:
            changes.append((*rule.name_span, _clause_name(module, index).encode()))
        else:
            changes = [edit for edit in changes if not rule.start <= edit[0] < end]
            changes.append((rule.start, end, _blank(module.text[rule.start : end])))
    return apply_edits(module.text, changes).decode()


def alias_edits(module: ModuleSyntax) -> list[Edit]:
    """Edits that write imported names out in full (`lib.f` as `data.policies.lib.f`).

    regorus evaluates the whole package behind an imported name, and then misses clauses that use a
    rule written further down when two files share the package; by its full path a rule is
    evaluated alone, and rightly. A name that is also a local variable is left as it is.
    """
    first_rule = module.rules[0].start if module.rules else 0
    source = module.text.decode()
    unshadowed = {
        alias: full for alias, full in module.aliases.items() if not _is_local(source, alias)
    }
    return [
        (start, end, unshadowed[name].encode())
        for name, start, end in module.variables
        if name in unshadowed and start >= first_rule
    ]


def _is_local(source: str, name: str) -> bool:
    word = re.escape(name)
    declarations = (
        rf"\b{word}\s*:=",
        rf"\b(some|every)\b[^{{}}\n]*\b{word}\b(?![.\[])",
        # An argument in the head of a function.
        rf"^\w+\([^()\n]*\b{word}\b[^()\n]*\)\s*(:?=(?!=)|if\b|\{{)",
    )
    return any(re.search(pattern, source, re.MULTILINE) for pattern in declarations)


def portable_edits(module: ModuleSyntax, *, prefix: str) -> list[Edit]:
    """Edits that turn a module into one OPA 1.x reads, below a package prefix of its own.

    v0 heads and bodies get `contains` and `if`; every `data` reference and the package move below
    `prefix`, so that two bundles on one server never meet. One line (`import rego.v1`) is added
    after the package, so lines shift by one.
    """
    start, end = module.package_span
    edits: list[Edit] = [
        (start, start, f"{prefix}.".encode()),
        (end, end, b"\nimport rego.v1"),
    ]
    for first, last in module.imports:
        wording = module.text[first:last]
        if re.match(rb"import\s+(future\.keywords|rego\.v1)\b", wording):
            edits.append((first, last, _blank(wording)))
    moved = f"data.{prefix}".encode()
    edits += [(first, last, moved) for name, first, last in module.variables if name == "data"]
    if not module.is_v1:
        for rule in module.rules:
            edits += _v1_edits(module.text, rule)
    kept_imports = [(first, last) for first, last, new in edits if not new.strip() and last > first]
    return [edit for edit in edits if not _is_inside(edit, kept_imports)]


def _is_inside(edit: Edit, blanked: Sequence[tuple[int, int]]) -> bool:
    """Whether an edit lies inside a stretch that another edit blanks."""
    return any(
        first <= edit[0] and edit[1] <= last and (edit[0], edit[1]) != (first, last)
        for first, last in blanked
    )


def apply_edits(text: bytes, edits: Sequence[Edit]) -> bytes:
    """The text with the edits applied; offsets are those of the original."""
    parts = []
    position = 0
    for start, end, replacement in sorted(edits, key=lambda edit: (edit[0], edit[1])):
        parts += [text[position:start], replacement]
        position = end
    return b"".join([*parts, text[position:]])


def _v1_edits(text: bytes, rule: Rule) -> Iterator[Edit]:
    head = rule.tree.get("head", {})
    if "Set" in head:
        _, name_end = _span(head["Set"]["refr"])
        head_end = head["Set"]["span"]["end"]
        if text[name_end : name_end + 1] == b"[" and text[head_end - 1 : head_end] == b"]":
            yield (name_end, name_end + 1, b" contains ")
            yield (head_end - 1, head_end, b" ")
    for body in rule.tree.get("bodies", ()):
        start = body["query"]["span"]["start"]
        if text[start : start + 1] == b"{" and not text[:start].rstrip().endswith(b" if"):
            yield (start, start, b"if ")


def _clause_name(module: ModuleSyntax, index: int) -> str:
    # Two files may share a package: the name carries the file as well as the position.
    stem = re.sub(r"\W", "_", module.path, flags=re.ASCII)
    return f"{CLAUSE_PREFIX}{index}_{stem}"


def _blank(text: bytes) -> bytes:
    return b"\n" * text.count(b"\n")


def _read_rule(node: Mapping[str, Any]) -> Rule:
    (kind, tree), *_ = node.items()
    span = tree["span"]
    head = tree.get("head")
    refr: Mapping[str, Any] = tree.get("refr", {})
    if isinstance(head, Mapping):
        (kind, shape), *_ = head.items()
        refr = shape["refr"]
    inner = refr
    while "RefBrack" in inner:
        inner = inner["RefBrack"]["refr"]
    variable = inner.get("Var")
    name_span = (variable["span"]["start"], variable["span"]["end"]) if variable else (0, 0)
    return Rule(
        name=str(variable["value"]) if variable else "",
        kind=kind,
        line=span["line"],
        start=span["start"],
        end=span["end"],
        name_span=name_span,
        tree=tree,
    )


def reference_parts(node: Mapping[str, Any]) -> list[str]:
    """The dotted parts of a reference."""
    (kind, body), *_ = node.items()
    if kind == "Var":
        return [str(body["value"])]
    if kind == "RefDot":
        return [*reference_parts(body["refr"]), str(body["field"][1])]
    if kind == "RefBrack":
        (_, index), *_ = body["index"].items()
        return [*reference_parts(body["refr"]), str(index.get("value", ""))]
    return []


def _span(node: Mapping[str, Any]) -> tuple[int, int]:
    (_, body), *_ = node.items()
    return body["span"]["start"], body["span"]["end"]


def _aliases(text: bytes, imports: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Names that imports of `data` give, with the full path of each."""
    for node in imports:
        parts = reference_parts(node["refr"])
        if parts[0] != "data" or len(parts) < 2:
            continue
        renamed = node.get("as")
        alias = text[renamed["start"] : renamed["end"]].decode() if renamed else parts[-1]
        if all(part.isidentifier() for part in (alias, *parts)):
            yield alias, ".".join(parts)


def _variables(node: object) -> Iterator[tuple[str, int, int]]:
    """Every variable with the bytes it stands in."""
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            variable = item.get("Var")
            if isinstance(variable, dict):
                span = variable["span"]
                yield str(variable["value"]), span["start"], span["end"]
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
