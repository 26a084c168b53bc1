"""Words of governance: roles, approvals, stages of a policy bundle."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

MICRO: Final = 1_000_000
CENT: Final = Decimal("0.01")
MODEL_MAX: Final = 128  # characters of a language model's name


class Role(StrEnum):
    """What a person may do in a namespace (or in all of them)."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    POLICY_AUTHOR = "policy_author"
    AUDITOR = "auditor"
    ADMIN = "admin"


class Permission(StrEnum):
    """What a request may need."""

    VIEW = "view"
    OPERATE = "operate"
    APPROVE = "approve"
    AUTHOR_POLICY = "author_policy"
    AUDIT = "audit"
    ADMINISTER = "administer"


ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.VIEW}),
    Role.OPERATOR: frozenset({Permission.VIEW, Permission.OPERATE}),
    Role.APPROVER: frozenset({Permission.VIEW, Permission.APPROVE}),
    Role.POLICY_AUTHOR: frozenset({Permission.VIEW, Permission.AUTHOR_POLICY}),
    Role.AUDITOR: frozenset({Permission.VIEW, Permission.AUDIT}),
    Role.ADMIN: frozenset(Permission),
}
EVERY_NAMESPACE = "*"


class ApprovalKind(StrEnum):
    """What is asked."""

    GRAPH = "graph"
    BUDGET = "budget"
    RELEASE = "release"
    DRIFT = "drift"


class ApprovalState(StrEnum):
    """Where an approval stands; all but PENDING are final."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    VOIDED = "voided"


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """A language model and what it costs, in micro-USD per million tokens; None is unknown."""

    name: str
    input: int | None = None
    output: int | None = None


@dataclass(frozen=True, slots=True)
class ModelWay:
    """A smaller model that open tasks could go on with, against those they use first now.

    The micro-USD a minute of running are what the tokens used so far came to, and would come to;
    None is unknown.
    """

    model: ModelPrice
    instead_of: tuple[ModelPrice, ...]
    tasks: int
    micro_usd_per_minute: int | None = None
    micro_usd_per_minute_now: int | None = None

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def words(self) -> str:
        """As on the card: "input 0.25 against 3.00 USD per 1M tokens, output unknown against …"."""
        said = f"{self._against('input')} USD per 1M tokens, {self._against('output')}"
        then, now = self.micro_usd_per_minute, self.micro_usd_per_minute_now
        if then is None or now is None:
            return f"{said}; what it burns a minute is unknown"
        return f"{said}; about {_about(then)} instead of {_about(now)} USD a minute of running"

    def _against(self, kind: str) -> str:
        named = len(self.instead_of) > 1
        now = [
            usd_text(getattr(one, kind)) + (f" ({one.name})" if named else "")
            for one in self.instead_of
        ]
        return f"{kind} {usd_text(getattr(self.model, kind))} against {' and '.join(now)}"


@dataclass(frozen=True, slots=True)
class Ways:
    """What there is to take from a Goal that goes on with less.

    GPUs of the widest open task, tasks at once, iterations that could follow, smaller models.
    """

    gpus: int = 0
    parallel: int = 0
    iterations: int = 0
    models: tuple[ModelWay, ...] = ()


@dataclass(frozen=True, slots=True)
class Stake:
    """What the wait for an answer risks. None is unknown.

    `damage_at` is the first projected loss and `damage` says which; `gpus_held` are kept from
    others meanwhile, at `micro_usd_per_minute`; `asks` is what is asked for, by unit.
    """

    damage_at: dt.datetime | None = None
    damage: str = ""
    gpus_held: int = 0
    micro_usd_per_minute: int | None = 0
    asks: Mapping[str, int] = field(default_factory=dict)
    ways: Ways | None = None  # None where nobody looked

    def urgency(self, *, expires_at: dt.datetime) -> tuple[int, float, float]:
        """Sorts by time to damage: what costs already, then what is lost soonest, then unknown."""
        if self.gpus_held:
            return 0, -float(self.micro_usd_per_minute or 0), expires_at.timestamp()
        if self.damage_at is not None:
            return 1, self.damage_at.timestamp(), expires_at.timestamp()
        return 2, expires_at.timestamp(), 0.0


def usd_text(micro_usd: int | None) -> str:
    """USD for people, to the cent or as small as it is; None is said as unknown."""
    if micro_usd is None:
        return "unknown"
    usd = Decimal(micro_usd) / MICRO
    cents = usd.quantize(CENT)
    return f"{cents:,f}" if cents == usd or cents >= 1 else f"{usd.normalize():,f}"


def _about(micro_usd: int) -> str:
    """USD that were projected: two digits tell enough below a dollar."""
    return usd_text(micro_usd if micro_usd >= MICRO else int(Decimal(f"{micro_usd:.2g}")))


def less_words(degrade: Mapping[str, Any]) -> str:
    """What an answer's `degrade` does, for people."""
    said = []
    if gpus := degrade.get("gpus"):
        said.append(f"at most {gpus} GPU{'s' * (gpus != 1)} for each task")
    if parallel := degrade.get("parallel"):
        said.append(f"at most {parallel} task{'s' * (parallel != 1)} at once")
    if degrade.get("last_iteration"):
        said.append("no further iteration")
    if models := _names(degrade.get("model") or []):
        said.append(f"no bigger model than {' or '.join(models)}")
    return ", ".join(said)


def narrowest(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What several people's answers allow together: the least of all that any of them named.

    The least of each amount, the first end, whatever one of them takes, and every model's name:
    which one is the smallest is for each agent to say, by the order in which it lists them.
    Raises ApprovalInvalid for values that cannot be compared.
    """
    least: dict[str, Any] = {}
    for answer in answers:
        for name, value in answer.items():
            least[name] = _narrower(name, least[name], value) if name in least else value
    return least


def _narrower(name: str, one: Any, other: Any) -> Any:
    if one == other:
        return one
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return narrowest([one, other])
    if name == "model":
        return sorted({*_names(one), *_names(other)})
    if isinstance(one, bool) and isinstance(other, bool):
        return one or other
    if isinstance(one, int) and isinstance(other, int):
        return min(one, other)
    if name == "until" and isinstance(one, str) and isinstance(other, str):
        return min(one, other, key=dt.datetime.fromisoformat)
    raise ApprovalInvalid(
        f"{name}: {one!r} and {other!r}, of two people that must approve, cannot both hold; "
        "agree on one of them, or deny."
    )


def _names(model: Any) -> list[str]:
    return [str(one) for one in model] if isinstance(model, list) else [str(model)]


class Stage(StrEnum):
    """How far a policy bundle counts."""

    DRAFT = "draft"
    SHADOW = "shadow"  # judged and recorded, without effect
    WARN = "warn"  # denials become warnings
    ENFORCE = "enforce"


class GovernanceError(Exception):
    """A request that governance refuses; the text is fit for the person who asked."""


class ApprovalConflict(GovernanceError):
    """The approval is already decided, expired or voided."""


class ApprovalForbidden(GovernanceError):
    """This person may not decide this approval."""


class ApprovalInvalid(GovernanceError):
    """The answer is not one the approval accepts."""
