"""What `get` can list: where each kind lives in the API and the columns people see."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from console.cli.quantities import (
    NONE,
    UNKNOWN,
    age,
    amount,
    gpu_time,
    short_digest,
    size,
    spent_and_limit,
    until,
    usd,
)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column; a wide one shows with `-o wide` only, a moving one changes by itself."""

    title: str
    cell: Callable[[Row], str]
    is_wide: bool = False
    is_moving: bool = False


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind. `one` is the path of a single object, "" where the API has only the list.

    `key` is what `-o name` prints and commands accept; `names` are further ways to refer to a row.
    `filters` are the flags of `get` that apply, each with the query parameter it becomes.
    """

    kind: str
    plural: str
    path: str
    columns: tuple[Column, ...]
    key: Callable[[Row], str]
    one: str = ""
    names: Callable[[Row], tuple[str, ...]] = lambda row: ()
    filters: Mapping[str, str] = field(default_factory=dict)
    namespace: Callable[[Row], str | None] = lambda row: row.get("namespace")
    is_namespaced: bool = True

    def cells(self, row: Row, *, is_wide: bool, is_everywhere: bool) -> list[str]:
        """The row's cells; with its namespace first when all namespaces are listed."""
        shown = [column.cell(row) or NONE for column in self.shown(is_wide=is_wide)]
        has_namespace = is_everywhere and self.is_namespaced
        return [self.namespace(row) or NONE, *shown] if has_namespace else shown

    def titles(self, *, is_wide: bool, is_everywhere: bool) -> list[str]:
        shown = [column.title for column in self.shown(is_wide=is_wide)]
        return ["NAMESPACE", *shown] if is_everywhere and self.is_namespaced else shown

    def shown(self, *, is_wide: bool) -> list[Column]:
        return [column for column in self.columns if is_wide or not column.is_wide]

    def state(self, row: Row, *, is_wide: bool) -> tuple[str, ...]:
        """What must differ for `--watch` to print the row again: all but its age."""
        return tuple(c.cell(row) for c in self.shown(is_wide=is_wide) if not c.is_moving)


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row[name] is None else str(row[name])


def _yes(name: str) -> Callable[[Row], str]:
    return lambda row: "true" if row[name] else "false"


def _age(name: str = "created_at", *, title: str = "AGE") -> Column:
    return Column(title, lambda row: age(row[name]), is_moving=True)


def _measured(row: Row) -> str:
    measured = row["status"]["measured"]
    return f"{measured['value']:g} {measured['unit']}".strip() if measured else UNKNOWN


def rules_of(row: Row) -> str:
    """The rules that spoke, by file and line."""
    found = [f"{m['path']}:{m['line']}" for m in row["messages"] if m.get("rule")]
    return ", ".join(dict.fromkeys(found)) or (row["error"] and f"error: {row['error']}") or NONE


def asked(approval: Row) -> str:
    """What a budget approval asks for; nothing for other kinds."""
    request = approval["request"]
    if request.get("kind") != "budget":
        return NONE
    return amount(request["unit"], int(request["ask"]))


def price_text(price: Row) -> str:
    per = "GPU-hour" if price["kind"] == "gpu" else "1M tokens"
    return f"{usd(price['micro_usd'])} per {per}"


def _expires(approval: Row) -> str:
    return until(approval["expires_at"]) if approval["state"] == "pending" else NONE


GOALS = Resource(
    kind="goal",
    plural="goals",
    path="/goals",
    key=lambda row: row["metadata"]["name"],
    one="/goals/{}",
    filters={"phase": "phase"},
    namespace=lambda row: row["metadata"]["namespace"],
    columns=(
        Column("NAME", lambda row: row["metadata"]["name"]),
        Column("PHASE", lambda row: row["status"]["phase"]),
        Column("SATISFIED", lambda row: "true" if row["status"]["satisfied"] else "false"),
        Column("SPENT", lambda row: spent_and_limit(row["status"]["accounts"])[0]),
        Column("LIMIT", lambda row: spent_and_limit(row["status"]["accounts"])[1]),
        Column("AGE", lambda row: age(row["metadata"]["creationTimestamp"]), is_moving=True),
        Column("OBJECTIVE", lambda row: row["spec"]["objective"], is_wide=True),
        Column("MEASURED", _measured, is_wide=True),
        Column("ITERATION", lambda row: str(row["status"]["iteration"]), is_wide=True),
        Column("REQUESTED-BY", lambda row: row["status"]["requestedBy"], is_wide=True),
        Column("UID", lambda row: row["metadata"]["uid"], is_wide=True),
    ),
)
AGENTS = Resource(
    kind="agent",
    plural="agents",
    path="/agents",
    key=_text("name"),
    names=lambda row: (row["uid"],),
    columns=(
        Column("NAME", _text("name")),
        Column("ROLE", _text("role")),
        Column("IMAGE", _text("image")),
        Column("GENERATION", _text("generation")),
        _age(),
        Column("SERVICE-ACCOUNT", _text("service_account"), is_wide=True),
        Column("REGISTERED-BY", _text("registered_by"), is_wide=True),
        Column("UID", _text("uid"), is_wide=True),
    ),
)
ATTEMPTS = Resource(
    kind="attempt",
    plural="attempts",
    path="/attempts",
    key=_text("uid"),
    one="/attempts/{}",
    names=lambda row: (row["workload"],),
    filters={"goal": "goal", "state": "state"},
    columns=(
        Column("ATTEMPT", _text("uid")),
        Column("TASK", _text("task")),
        Column("TRY", lambda row: f"{row['iteration']}.{row['number']}"),
        Column("AGENT", _text("agent_name")),
        Column("STATE", _text("state")),
        Column("GPUS", _text("gpus")),
        Column("GPU-TIME", lambda row: gpu_time(row["gpu_ms"])),
        _age(),
        Column("REASON", _text("reason"), is_wide=True),
        Column("EXIT", _text("exit_code"), is_wide=True),
        Column("WORKLOAD", _text("workload"), is_wide=True),
        Column("SPIFFE-ID", _text("spiffe_id"), is_wide=True),
    ),
)
APPROVALS = Resource(
    kind="approval",
    plural="approvals",
    path="/approvals",
    key=_text("uid"),
    one="/approvals/{}",
    filters={"goal": "goal", "state": "state"},
    columns=(
        Column("APPROVAL", _text("uid")),
        Column("KIND", _text("kind")),
        Column("STATE", _text("state")),
        Column("TITLE", _text("title")),
        Column("ASKS", asked),
        Column("EXPIRES-IN", _expires, is_moving=True),
        _age(),
        Column("REQUESTED-BY", _text("requested_by"), is_wide=True),
        Column("DECIDED-BY", _text("decided_by"), is_wide=True),
        Column("REASON", _text("reason"), is_wide=True),
        Column("REQUEST", _text("request_digest"), is_wide=True),
    ),
)
DECISIONS = Resource(
    kind="decision",
    plural="decisions",
    path="/decisions",
    key=_text("uid"),
    filters={"goal": "goal", "outcome": "outcome"},
    columns=(
        Column("DECISION", _text("uid")),
        Column("POINT", _text("point")),
        Column("SUBJECT", lambda row: short_digest(row["subject_id"])),
        Column("OUTCOME", _text("outcome")),
        Column("STAGE", _text("stage")),
        Column("RULES", rules_of),
        _age("at"),
        Column("BUNDLE", lambda row: f"{row['bundle_name']}@{row['bundle_digest']}", is_wide=True),
        Column("INPUT", _text("input_digest"), is_wide=True),
        Column("ENGINE", _text("engine"), is_wide=True),
    ),
)
RELEASES = Resource(
    kind="release",
    plural="releases",
    path="/releases",
    key=_text("id"),
    filters={"goal": "goal"},
    columns=(
        Column("RELEASE", _text("id")),
        Column("SERVICE", _text("service")),
        Column("ENVIRONMENT", _text("environment")),
        Column("NUMBER", _text("number")),
        Column("DIGEST", lambda row: short_digest(row["digest"])),
        Column("STATE", _text("state")),
        Column("ROLLBACK", _yes("is_rollback")),
        _age("released_at"),
        Column("FULL-DIGEST", _text("digest"), is_wide=True),
        Column("PREVIOUS", _text("previous_digest"), is_wide=True),
        Column("RELEASED-BY", _text("released_by"), is_wide=True),
        Column("REASON", _text("reason"), is_wide=True),
    ),
)
ARTIFACTS = Resource(
    kind="artifact",
    plural="artifacts",
    path="/artifacts",
    key=_text("digest"),
    one="/artifacts/{}",
    names=lambda row: (row["name"],),
    filters={"kind": "kind"},
    columns=(
        Column("DIGEST", _text("digest")),
        Column("KIND", _text("kind")),
        Column("NAME", _text("name")),
        # One artifact and a row of the list name these differently.
        Column("SIZE", lambda row: size(row.get("size_bytes", row.get("size")))),
        Column("SIGNED", lambda row: str(bool(row.get("is_signed", row.get("signed")))).lower()),
        Column("RECALLED", _yes("recalled_at")),
        _age(),
        Column("SIGNER", _text("signer"), is_wide=True),
        Column("BLOB", _text("blob_digest"), is_wide=True),
    ),
)
JOURNAL = Resource(
    kind="record",
    plural="journal",
    path="/journal",
    key=lambda row: str(row["seq"]),
    filters={"goal": "goal", "action": "action", "actor": "actor"},
    columns=(
        Column("SEQ", _text("seq")),
        Column("AT", _text("at")),
        Column("ACTOR", lambda row: f"{row['actor_kind']}:{row['actor_id']}"),
        Column("ACTION", _text("action")),
        Column("OBJECT", lambda row: f"{row['object_kind']}/{short_digest(row['object_id'])}"),
        Column("GOAL", _text("goal_uid"), is_wide=True),
        Column("HASH", _text("hash"), is_wide=True),
    ),
)
CHECKPOINTS = Resource(
    kind="checkpoint",
    plural="checkpoints",
    path="/journal/checkpoints",
    key=lambda row: str(row["size"]),
    is_namespaced=False,
    columns=(
        Column("RECORDS", _text("size")),
        Column("ROOT", lambda row: short_digest(row["root_hash"])),
        _age(),
        Column("FULL-ROOT", _text("root_hash"), is_wide=True),
    ),
)
PACKS = Resource(
    kind="pack",
    plural="packs",
    path="/packs",
    key=lambda row: str(row["seq"]),
    columns=(
        Column("RECORD", _text("seq")),
        Column("OF", _text("name")),
        Column("BY", _text("actor_id")),
        Column("SIZE", lambda row: size(row["size_bytes"])),
        _age("at"),
        Column("SHA-256", _text("sha256"), is_wide=True),
    ),
)
PRICES = Resource(
    kind="price",
    plural="prices",
    path="/prices",
    key=lambda row: f"{row['kind']}/{row['name']}",
    is_namespaced=False,
    names=lambda row: (row["name"],),
    columns=(
        Column("KIND", _text("kind")),
        Column("NAME", _text("name")),
        Column("PRICE", price_text),
        Column("SET-BY", _text("set_by")),
        _age(),
    ),
)
USERS = Resource(
    kind="user",
    plural="users",
    path="/users",
    key=_text("username"),
    one="/users/{}",
    is_namespaced=False,
    columns=(
        Column("NAME", _text("username")),
        Column("ROLES", lambda row: ", ".join(row["roles"])),
        Column("STATE", lambda row: "active" if row["is_active"] else "deactivated"),
        Column("SESSIONS", _text("sessions")),
        Column("TOKENS", _text("tokens")),
        Column(
            "LAST-SIGN-IN",
            lambda row: age(row["last_sign_in_at"]) if row["last_sign_in_at"] else "never",
            is_moving=True,
        ),
        _age(),
        Column("FULL-NAME", _text("full_name"), is_wide=True),
        Column(
            "PASSWORD",
            lambda row: "one-time" if row["must_change_password"] else "own",
            is_wide=True,
        ),
    ),
)


def _share(row: Row) -> str:
    return UNKNOWN if row["utilisation"] is None else f"{100 * row['utilisation']:.0f} %"


def _memory(row: Row) -> str:
    if row["memory_used_bytes"] is None:
        return UNKNOWN
    return f"{size(row['memory_used_bytes'])} of {size(row['memory_total_bytes'])}"


def _holder(row: Row) -> str:
    """Who holds a GPU; "held" where the holder is not for this person to see."""
    holder, other = row["holder"], row["foreign_holder"]
    if other is not None:
        return f"{other['namespace']}/{other['pod']} (not ours)"
    if row["is_held_by_others"]:
        return "held (not ours)"
    if holder is None:
        return "held" if row["is_held"] else NONE
    return f"{holder['namespace']}/{holder['goal'] or holder['goal_uid']}/{holder['task']}"


def _idle(row: Row) -> str:
    """Since when a GPU is held for nothing and what that costs."""
    waste = row["waste"]
    if waste is None:
        return NONE
    return f"{waste['why']} {waste['seconds'] / 60:.0f} min, {usd(waste['micro_usd'])}"


def _heat(row: Row) -> str:
    return UNKNOWN if row["temperature_c"] is None else f"{row['temperature_c']} C"


def _holding(name: str) -> Callable[[Row], str]:
    return lambda row: row["holder"][name] if row["holder"] else ""


GPUS = Resource(
    kind="gpu",
    plural="gpus",
    path="/gpus",
    key=_text("id"),
    filters={"state": "show"},
    is_namespaced=False,
    columns=(
        Column("NODE", _text("node")),
        Column("GPU", _text("id")),
        Column("KIND", _text("kind")),
        Column("SOURCE", lambda row: "measured" if row["is_measured"] else "declared"),
        Column("FROM", _text("source"), is_wide=True),
        Column("STATE", _text("state")),
        Column("BUSY", _share, is_moving=True),
        Column("MEMORY", _memory, is_moving=True),
        Column("HELD-BY", _holder),
        Column("IDLE-BUT-HELD", _idle, is_moving=True),
        _age("sampled_at", title="READ"),
        Column("NAME", _text("name"), is_wide=True),
        Column("AGENT", _holding("agent"), is_wide=True),
        Column(
            "MODEL",
            lambda row: ", ".join(
                f"{model['name']}@{short_digest(model['digest'])}"
                for model in (row["holder"] or {"models": ()})["models"]
            ),
            is_wide=True,
        ),
        Column("HEAT", _heat, is_wide=True, is_moving=True),
        Column("MARKS", lambda row: ", ".join(m["word"] for m in row["marks"]), is_wide=True),
    ),
)

RESOURCES = (
    GOALS,
    AGENTS,
    ATTEMPTS,
    APPROVALS,
    DECISIONS,
    RELEASES,
    ARTIFACTS,
    JOURNAL,
    CHECKPOINTS,
    PACKS,
    PRICES,
    USERS,
    GPUS,
)
BY_NAME = {name: r for r in RESOURCES for name in (r.plural, r.kind)}
