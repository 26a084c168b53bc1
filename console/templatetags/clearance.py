"""How facts look on a page: amounts, times, states; the unknown is said as unknown."""

import datetime as dt
import re
from functools import lru_cache
from typing import Any

from django import template
from django.forms import BoundField
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from goals.domain.states import Phase, Unit
from goals.models import Goal
from governance.domain import EVERY_NAMESPACE, Permission, less_words
from governance.export import EXPORT_ROWS_MAX
from governance.row_filter import RowFilter
from governance.sessions import session_principal
from governance.time_range import PRESETS, TimeRange

register = template.Library()

UNKNOWN = format_html('<span class="unknown">{}</span>', "unknown")
DIGEST_SHOWN = 12  # hex characters: 48 bits tell apart what one page lists
NODE_ID_SHOWN = 30  # characters of an id that is neither digest nor UUID
UUID_TEXT = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
AGENT_ID = re.compile("spiffe://[^/]+/ns/([^/]+)/sa/[^/]+/goal/[^/]+/agent/([^/]+)")
# What has no page of its own stands in a list, under an id that begins with its kind.
LISTED_AT = {"kill_switch": "kill_switch", "delegation": "delegation_list"}
AGENT_WORDS_SHOWN = 600  # characters of an agent's text that are shown at once
MS_PER_SECOND = 1000
MICRO = 1_000_000
BADGES_KEPT = 512  # of words; there are some dozens of states

# Shape and word carry the state; the tone only repeats them. Red is danger, amber a warning.
TONES: dict[str, tuple[str, str]] = {
    "Draft": ("idle", "○"),
    "Planned": ("idle", "◔"),
    "AwaitingApproval": ("warning", "◆"),
    "Running": ("active", "▶"),
    "Paused": ("warning", "‖"),
    "Satisfied": ("good", "✓"),
    "Exhausted": ("danger", "⊘"),
    "Failed": ("danger", "✕"),
    "Cancelled": ("idle", "-"),
    "Denied": ("danger", "⊘"),
    "pending": ("idle", "○"),
    "running": ("active", "▶"),
    "paused": ("warning", "‖"),
    "succeeded": ("good", "✓"),
    "failed": ("danger", "✕"),
    "stopped": ("idle", "■"),
    "lost": ("warning", "?"),
    "allow": ("good", "✓"),
    "warn": ("warning", "▲"),
    "require_approval": ("warning", "◆"),
    "deny": ("danger", "⊘"),
    "approved": ("good", "✓"),
    "denied": ("danger", "⊘"),
    "expired": ("idle", "◷"),
    "voided": ("idle", "-"),
    "active": ("good", "●"),
    "awaiting_approval": ("warning", "◆"),
    "superseded": ("idle", "○"),
    "True": ("good", "✓"),
    "False": ("danger", "✕"),
    "Unknown": ("idle", "?"),
    "signed": ("good", "✓"),
    "unsigned": ("warning", "▲"),
    "recalled": ("danger", "⊘"),
    "revoked": ("idle", "■"),
    "valid": ("good", "✓"),
}
WORDS = {
    "AwaitingApproval": "Awaiting approval",
    "require_approval": "needs approval",
    "awaiting_approval": "awaiting approval",
}
PHASES = tuple(phase.value for phase in Phase)


@register.simple_tag
def badge(state: Any, word: str = "") -> SafeString:
    """A state as shape and word."""
    return _badge(str(state), word)


@lru_cache(maxsize=BADGES_KEPT)
def _badge(text: str, word: str) -> SafeString:
    tone, shape = TONES.get(text, ("idle", "•"))
    return format_html(
        '<span class="badge tone-{}"><span class="shape" aria-hidden="true">{}</span>{}</span>',
        tone,
        shape,
        word or WORDS.get(text, text),
    )


@register.filter
def or_unknown(value: Any) -> Any:
    """The value, or the word "unknown" for None and the empty text; zero is zero."""
    return UNKNOWN if value is None or value == "" else value


@register.filter
def amount(value: int | float | None, unit: str) -> Any:
    """An amount of the ledger in the unit people say it in."""
    if value is None:
        return UNKNOWN
    match Unit(unit):
        case Unit.GPU_MS:
            return _gpu_time(value / MS_PER_SECOND)
        case Unit.TOKENS:
            return f"{value:,.0f} tokens"
        case Unit.MICRO_USD:
            return f"{value / MICRO:,.2f} USD"


def _gpu_time(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:,.2f} GPU-hours"
    if seconds >= 120:
        return f"{seconds / 60:,.1f} GPU-minutes"
    if 0 < seconds < 0.1:
        return f"{seconds * MS_PER_SECOND:.0f} GPU-milliseconds"
    return f"{seconds:,.1f} GPU-seconds"


@register.filter
def number(value: int) -> str:
    """A count, its thousands set apart."""
    return f"{value:,}"


@register.filter
def unit_name(unit: str) -> str:
    """What a dimension of the budget is called."""
    return {"gpu_ms": "GPU time", "tokens": "Tokens", "micro_usd": "Money"}[unit]


@register.filter
def milliseconds(value: int | None) -> Any:
    """A duration given in milliseconds."""
    return UNKNOWN if value is None else span_of_time(value / MS_PER_SECOND)


@register.filter
def seconds(value: float | None) -> Any:
    """A duration given in seconds."""
    return UNKNOWN if value is None else span_of_time(value)


def span_of_time(total: float) -> str:
    """At most two units: `4.2 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if total < 60:
        return f"{total:.1f} s" if total < 10 else f"{total:.0f} s"
    minutes, second = divmod(int(total), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    return f"{hours} h {minute} min" if hours else f"{minutes} min {second} s"


@register.filter
def ago(moment: dt.datetime | None) -> Any:
    """A moment as its distance from now; the exact time is the element's title."""
    if moment is None:
        return UNKNOWN
    distance = (timezone.now() - moment).total_seconds()
    text = f"{span_of_time(distance)} ago" if distance >= 0 else f"in {span_of_time(-distance)}"
    return _time(moment, text, is_relative=True)


@register.filter
def moment(value: dt.datetime | None) -> Any:
    """A moment in UTC to the second."""
    return UNKNOWN if value is None else _time(value, f"{value:%Y-%m-%d %H:%M:%S}")


@register.filter
def instant(text: str | None) -> Any:
    """A moment as Kubernetes writes it (RFC 3339), like any other."""
    return moment(dt.datetime.fromisoformat(text)) if text else UNKNOWN


def _time(value: dt.datetime, text: str, *, is_relative: bool = False) -> SafeString:
    utc = value.astimezone(dt.UTC)
    exact = utc.isoformat(" ", "seconds")[:19]
    relative = " data-relative" if is_relative else ""
    # Nothing of it is text that anybody wrote, and a page has hundreds: not escaped piece by piece.
    return SafeString(
        f'<time datetime="{utc.isoformat()}" title="{exact} UTC"{relative}>{text}</time>'
    )


@register.filter
def digest(value: str | None) -> Any:
    """The start of a digest or hash; the whole is the element's title."""
    if not value:
        return UNKNOWN
    shown = value.removeprefix("sha256:")[:DIGEST_SHOWN]
    return format_html('<code class="digest" title="{}">{}</code>', value, shown)


@register.filter
def short_id(value: str) -> str:
    """The part of an id that tells it apart on a page."""
    if value.startswith("sha256:"):
        return value[7 : 7 + DIGEST_SHOWN]
    if UUID_TEXT.fullmatch(value):
        return value[:8]
    return value if len(value) <= NODE_ID_SHOWN else f"{value[: NODE_ID_SHOWN - 1]}…"


@register.filter
def less(degrade: Any) -> str:
    """What a Goal goes on with, of the answer that degraded it."""
    return less_words(degrade or {})


@register.filter
def spaced(word: str) -> str:
    """A word of the system as people write it: `ledger_entry` is a ledger entry."""
    return word.replace("_", " ")


@register.filter
def code_words(text: str) -> SafeString:
    """A sentence whose words in backticks are code, escaped."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a tick without its other half is one of the text's own
        return format_html("{}", text)
    wrap = ("{}", "<code>{}</code>")
    return format_html_join(
        "", "{}", ((format_html(wrap[n % 2], one),) for n, one in enumerate(parts))
    )


@register.filter
def actor_name(value: str) -> str:
    """Who acted: of a SPIFFE ID the agent it names, else the whole."""
    return value.rpartition("/agent/")[2] if value.startswith("spiffe://") else value


@register.filter
def size(value: int | None) -> Any:
    """Bytes in decimal units."""
    if value is None:
        return UNKNOWN
    scaled = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if scaled < 1000:
            return f"{scaled:.0f} B" if unit == "B" else f"{scaled:.1f} {unit}"
        scaled /= 1000
    return f"{scaled:.1f} TB"


@register.filter
def counted(noun: str, count: int) -> str:
    """The plural that a list is called by, or of one thing its singular."""
    if count != 1:
        return noun
    if noun == "people":
        return "person"
    return f"{noun[:-3]}y" if noun.endswith("ies") else noun.removesuffix("s")


@register.filter
def reference(goal: Goal) -> str:
    """How a URL names a Goal: by name while the name is its own, else by uid."""
    return str(goal.uid) if goal.deleted_at else f"{goal.namespace}/{goal.name}"


@register.filter
def node_url(node_id: str, kind: str) -> str:
    """The page of a node of the provenance graph, "" where it has none of its own."""
    names = {
        "goal": "goal_detail",
        "attempt": "attempt_detail",
        "decision": "decision_detail",
        "approval": "approval_detail",
        "artifact": "artifact_detail",
        "release": "release_detail",
        "span": "span_detail",
        "agent": "agent_by_uid",
        "ledger_entry": "entry_detail",
        "workload": "catalogue_detail",
    }
    if kind in LISTED_AT:
        return f"{reverse(LISTED_AT[kind])}#{kind}-{node_id}"
    try:
        if kind == "bundle":
            return reverse("policy_detail", args=node_id.split("@"))
        return reverse(names[kind], args=[node_id]) if kind in names else ""
    except NoReverseMatch:
        return ""


@register.simple_tag(takes_context=True)
def person_url(context: template.Context, username: str) -> str:
    """The page of a person, for those who may open it: administrators, and one's own."""
    principal = session_principal(context["request"])
    if username == principal.username:
        return reverse("profile")
    may = principal.may(Permission.ADMINISTER, namespace=EVERY_NAMESPACE)
    return reverse("person_detail", args=[username]) if may and username else ""


@register.filter
def agent_url(spiffe_id: str) -> str:
    """The page of the agent that an identity names, "" where it names none."""
    found = AGENT_ID.fullmatch(spiffe_id)
    return reverse("agent_detail", args=found.groups()) if found else ""


@register.inclusion_tag("_agent_words.html")
def agent_words(text: str, label: str = "") -> dict[str, Any]:
    """Text that an agent wrote: escaped, clipped and boxed as unverified."""
    return {
        "label": label,
        "text": text[:AGENT_WORDS_SHOWN],
        "clipped": max(len(text) - AGENT_WORDS_SHOWN, 0),
    }


@register.simple_tag(takes_context=True)
def ask_whom(context: template.Context, permission: str, namespace: str = EVERY_NAMESPACE) -> str:
    """Whom the person can ask for a right they lack: "ask ada, bob or carol."."""
    principal = session_principal(context["request"])
    return principal.whom_to_ask(Permission(permission), namespace=namespace)


@register.simple_tag
def invalid(field: BoundField | str) -> str:
    """Attributes of a field that was refused: it says so, and where the reason stands.

    A page that shows its form for the first time may have no form yet: "" is a field of none.
    """
    if isinstance(field, str) or not field.errors:
        return ""
    text = 'aria-invalid="true" aria-describedby="{}-error"'
    return format_html(text, field.html_name)


@register.inclusion_tag("_pages.html", takes_context=True)
def pages(
    context: template.Context, page: Any, noun: str, table: str = "", name: str = "page"
) -> dict[str, Any]:
    """Where one is in a long list, with links that keep the filter.

    `table` is the name under which the view exports it; then the links to its files stand here.
    `name` is the parameter that turns the pages, where a page has several lists.
    """
    kept = context["request"].GET.copy()
    kept.pop(name, None)
    return {
        "page": page,
        "noun": noun,
        "table": table,
        "name": name,
        "kept": f"&{kept.urlencode()}" if kept else "",
        "request": context["request"],
    }


@register.inclusion_tag("_table_tools.html", takes_context=True)
def table_tools(context: template.Context, table: str, noun: str = "") -> dict[str, Any]:
    """Links to every row of a table as CSV and JSON; `table` is the name its view exports."""
    kept = context["request"].GET.copy()
    for name in ("page", "cursor", "format"):
        kept.pop(name, None)
    kept["table"] = table
    return {"noun": noun or table, "most": f"{EXPORT_ROWS_MAX:,}", "kept": f"&{kept.urlencode()}"}


@register.inclusion_tag("_filter.html", takes_context=True)
def filter_box(context: template.Context, chosen: RowFilter, noun: str) -> dict[str, Any]:
    """The filter of a list; what else narrows the page stays as it is."""
    kept = context["request"].GET.copy()
    for name in ("page", "cursor", "q", "format"):
        kept.pop(name, None)
    items = [(name, value) for name, values in kept.lists() for value in values]
    return {
        "filter": chosen,
        "noun": noun,
        "kept": items,
        "request": context["request"],
        "csp_nonce": context.get("csp_nonce", ""),
    }


@register.inclusion_tag("_time_range.html", takes_context=True)
def time_range_picker(context: template.Context, chosen: TimeRange) -> dict[str, Any]:
    """The presets and the custom range of a page, with links that keep its filter."""
    kept = context["request"].GET.copy()
    for name in ("page", "cursor", "time", "from", "until", "format"):
        kept.pop(name, None)

    def choice(text: str, label: str) -> dict[str, Any]:
        query = kept.copy()
        if text:
            query["time"] = text
        return {"label": label, "query": query.urlencode(), "is_chosen": chosen.text == text}

    choices = [choice(text, label) for text, (label, _) in PRESETS.items()]
    items = [(name, value) for name, values in kept.lists() for value in values]
    return {"choices": [*choices, choice("", "All")], "kept": items, "range": chosen}


@register.inclusion_tag("_budget_bar.html")
def budget_bar(account: Any) -> dict[str, Any]:
    """The bar of one dimension of a budget (`goals.pages.AccountView`)."""
    return {"account": account}
