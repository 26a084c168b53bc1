"""The Goal manifest as a form: each field a view of one value in the text, and back again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

from agents.domain.problems import FieldProblem, ManifestError
from goals.domain.manifest import (
    DEADLINE_MAX,
    DEFAULT_ITERATIONS,
    DEFAULT_RETRIES,
    DEFAULT_SOFT_LIMIT_PERCENT,
    ITERATIONS_MAX,
    PRIORITY_MAX,
    RETRIES_MAX,
    GpusOnPause,
)
from goals.domain.manifest_text import (
    ManifestText,
    Path,
    Plain,
    UneditableText,
    double_quoted,
    is_word_of_another_type,
    parse_path,
    value_at,
)

FLAT: Final = "The indentation was lost: indent the fields of metadata and spec in the YAML first."


@dataclass(frozen=True, slots=True)
class FormField:
    """One field. `kind`: text, whole, flag, choice, lines (a text a line) or pairs (key=value)."""

    name: str
    path: Path
    kind: str
    label: str
    hint: str = ""
    default: str = ""  # what holds when it is left empty, in words
    is_required: bool = False
    choices: tuple[str, ...] = ()

    @property
    def path_text(self) -> str:
        """As problems name it."""
        return ".".join(str(step) for step in self.path)


def _spec(name: str, kind: str, label: str, hint: str = "", **rest: Any) -> FormField:
    return FormField(name.replace(".", "-"), ("spec", *name.split(".")), kind, label, hint, **rest)


FIELDS: Final = (
    FormField("name", ("metadata", "name"), "text", "Name", is_required=True),
    FormField("namespace", ("metadata", "namespace"), "text", "Namespace", default="default"),
    _spec(
        "objective",
        "text",
        "Objective",
        "A measurement, a comparison, a value with its unit: p99 latency < 120 ms for /checkout",
        is_required=True,
    ),
    _spec(
        "budget",
        "text",
        "Budget",
        "GPU time, tokens, money; several with commas: 50 GPU-minutes, 20 USD",
        is_required=True,
    ),
    _spec("agents", "lines", "Agents", "One a line; the order breaks ties.", is_required=True),
    _spec("requireApproval", "flag", "A human approves the graph first", default="no"),
    _spec("deadlineSeconds", "whole", "Deadline", f"Seconds, 1 to {DEADLINE_MAX}.", default="none"),
    _spec(
        "maxIterations",
        "whole",
        "Iterations at most",
        f"1 to {ITERATIONS_MAX}.",
        default=str(DEFAULT_ITERATIONS),
    ),
    _spec(
        "retries",
        "whole",
        "Retries of a task",
        f"0 to {RETRIES_MAX}.",
        default=str(DEFAULT_RETRIES),
    ),
    _spec("priority", "whole", "Priority", f"-{PRIORITY_MAX} to {PRIORITY_MAX}.", default="0"),
    _spec("sponsor", "text", "Sponsor", "The user who answers for it.", default="nobody"),
    _spec("parent", "text", "Parent Goal", "Its budget is narrowed by this one.", default="none"),
    _spec(
        "throttle.softLimitPercent",
        "whole",
        "Warn at",
        "Percent of the budget, 1 to 100.",
        default=str(DEFAULT_SOFT_LIMIT_PERCENT),
    ),
    _spec(
        "throttle.gpusOnPause",
        "choice",
        "GPUs of a paused task",
        default=GpusOnPause.RELEASE.value,
        choices=tuple(choice.value for choice in GpusOnPause),
    ),
    FormField("labels", ("metadata", "labels"), "pairs", "Labels", "key=value, one a line."),
    FormField(
        "annotations", ("metadata", "annotations"), "pairs", "Annotations", "key=value, one a line."
    ),
)
BY_NAME: Final = {field.name: field for field in FIELDS}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a field shows; `why_not` says why the form cannot show what the text says."""

    value: str = ""
    why_not: str = ""


def read_form(text: str) -> dict[str, Reading]:
    """Every field by name. Raises ManifestError, UneditableText when there is no form of it."""
    manifest = ManifestText(text)
    document = manifest.document
    if document.get("metadata", 0) is None and document.get("spec", 0) is None:
        raise UneditableText(FLAT)
    return {field.name: _read(manifest, field) for field in FIELDS}


def write_form(text: str, values: Mapping[str, str]) -> tuple[str, list[FieldProblem]]:
    """The text with the fields that differ changed, and what could not be written and why.

    A value that the text says already changes nothing. Raises ManifestError, UneditableText.
    """
    manifest = ManifestText(text)
    readings = read_form(text)
    problems: list[FieldProblem] = []
    for name, value in values.items():
        field = BY_NAME.get(name)
        if field is None or readings[name].why_not or readings[name].value == value:
            continue
        before = manifest.text
        try:
            _write(manifest, field, value)
        except (UneditableText, ManifestError) as error:
            problems.append(FieldProblem(field.path_text, str(error)))
            manifest = ManifestText(before)
    return manifest.text, problems


def field_of(path: str) -> str:
    """The name of the form's field that a problem's path is about, or ""."""
    steps = parse_path(path)
    for field in FIELDS:
        if steps[: len(field.path)] == field.path:
            return field.name
    return ""


# --- From the text --------------------------------------------------------------------------------


def _read(manifest: ManifestText, field: FormField) -> Reading:
    try:
        value = value_at(manifest.document, field.path)
    except KeyError:
        return Reading(why_not="What it belongs to is not a mapping: change it in the YAML.")
    if value is None:
        source = manifest.source_of(field.path) if field.kind == "whole" else ""
        return Reading(source)
    match field.kind:
        case "text":
            return _read_text(value)
        case "whole":
            return _read_whole(value, manifest.source_of(field.path))
        case "flag":
            return _read_word(str(value).lower() if isinstance(value, bool) else None)
        case "choice":
            return _read_word(value if value in (*field.choices, "") else None)
        case "lines":
            return _read_lines(value)
        case _:
            return _read_pairs(value)


def _read_word(word: str | None) -> Reading:
    if word is None:
        return Reading(why_not="The form has no such choice: change it in the YAML.")
    return Reading(word)


def _read_text(value: Any) -> Reading:
    if not isinstance(value, str):
        return Reading(why_not="It is not written as text: put it in quotes in the YAML.")
    if not _is_line(value):
        return Reading(why_not="It is written over several lines: change it in the YAML.")
    return Reading(value)


def _read_whole(value: Any, source: str) -> Reading:
    if isinstance(value, str):
        if not _is_line(value):
            return Reading(why_not="It is written over several lines: change it in the YAML.")
        # In quotes, so that it can be told from the number of the same digits.
        return Reading(double_quoted(value) if is_word_of_another_type(value) else value)
    if isinstance(value, list | Mapping):
        return Reading(why_not="It is not written as a number: change it in the YAML.")
    return Reading(source)


def _read_lines(value: Any) -> Reading:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return Reading(why_not="It is not written as a list of texts: change it in the YAML.")
    if not all(_is_entry(one) for one in value):
        return Reading(why_not="An entry is empty or has a line break: change it in the YAML.")
    return Reading("\n".join(value))


def _read_pairs(value: Any) -> Reading:
    if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
        return Reading(why_not="It is not written as keys with texts: change it in the YAML.")
    lines = [f"{key}={text}" for key, text in value.items()]
    if not all(_is_entry(line) and "=" not in key for line, key in zip(lines, value, strict=True)):
        return Reading(why_not="An entry has a line break or an =: change it in the YAML.")
    return Reading("\n".join(lines))


def _is_line(text: str) -> bool:
    """Can a field of one line hold it, character for character?"""
    return "\n" not in text and "\r" not in text


def _is_entry(text: str) -> bool:
    return _is_line(text) and text.strip() == text != ""


# --- Into the text --------------------------------------------------------------------------------


def _write(manifest: ManifestText, field: FormField, value: str) -> None:
    match field.kind:
        case "lines":
            _write_lines(manifest, field, _entries(value))
        case "pairs":
            _write_pairs(manifest, field, _entries(value))
        case _ if value == "":
            _empty(manifest, field)
        case "whole" | "flag":
            manifest.set(field.path, _number(value))
        case _:
            manifest.set(field.path, value)


def _number(value: str) -> str | Plain:
    if is_word_of_another_type(value):
        return Plain(value)
    inner = value[1:-1]
    is_quoted = is_word_of_another_type(inner) and double_quoted(inner) == value
    return inner if is_quoted else value


def _empty(manifest: ManifestText, field: FormField) -> None:
    """An optional field goes; a required one keeps its place while nothing stands there."""
    if field.is_required:
        manifest.set(field.path, "")
    else:
        manifest.remove(field.path)


def _entries(value: str) -> list[str]:
    lines = value.replace("\r\n", "\n").split("\n")
    return [line.strip() for line in lines if line.strip()]


def _write_lines(manifest: ManifestText, field: FormField, entries: Sequence[str]) -> None:
    if entries != (value_at(manifest.document, field.path) or []):
        manifest.set_items(field.path, entries)


def _write_pairs(manifest: ManifestText, field: FormField, entries: Sequence[str]) -> None:
    pairs: dict[str, str] = {}
    for entry in entries:
        key, equals, text = entry.partition("=")
        if not equals or not key:
            raise UneditableText(f'"{entry}" is not key=value.')
        if key in pairs:
            raise UneditableText(f'The key "{key}" is given twice.')
        pairs[key] = text
    held = value_at(manifest.document, field.path) or {}
    if not pairs:
        if held:
            manifest.remove(field.path)
        return
    _replace_pairs(manifest, field.path, list(held), pairs)


def _replace_pairs(
    manifest: ManifestText, path: Path, held: Sequence[str], pairs: Mapping[str, str]
) -> None:
    names = list(pairs)
    kept: set[str] = set()
    for tag, low, high, _, _ in SequenceMatcher(None, held, names, autojunk=False).get_opcodes():
        if tag == "equal":
            kept.update(held[low:high])
    # What is new goes in before what is old goes out: a mapping is never empty in between. A key
    # that moves has to leave its place first.
    for name in [one for one in held if one not in kept and one in pairs and len(held) > 1]:
        manifest.remove((*path, name))
    for index, name in enumerate(names):
        old = (value_at(manifest.document, path) or {}).get(name)
        if old != pairs[name]:
            manifest.set((*path, name), pairs[name], after=names[index - 1] if index else "")
    for name in [one for one in held if one not in pairs]:
        manifest.remove((*path, name))
