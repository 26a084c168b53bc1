"""Judges a tower's state by its invariants: `python -m tests.kill.oracle` prints what is wrong.

Run with the tower's environment while its telemetry store answers. Prints one JSON object:
`problems` (empty when every invariant holds) and `counts` of what was looked at, so that a judge
that saw nothing is noticed. KILL_CHECKS names the checks to run, all by default; KILL_SECRETS is a
JSON list of further secrets.
"""

import base64
import hashlib
import itertools
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
django.setup()

from django.conf import settings  # noqa: E402 - models need the set-up above
from django.db.models import Sum  # noqa: E402

from agents.cluster import get_cluster  # noqa: E402
from agents.domain.states import ACTIVE_STATES  # noqa: E402
from agents.models import Attempt, JoinToken  # noqa: E402
from agents.services.identity import _join_secret  # noqa: E402
from goals.domain.states import TERMINAL_PHASES, EntryKind, Phase  # noqa: E402
from goals.models import Account, Goal, LedgerEntry, Release, Task  # noqa: E402
from goals.services.ledger import is_balanced  # noqa: E402
from governance.domain import ApprovalState  # noqa: E402
from governance.models import Approval, Checkpoint, JournalHead, JournalRecord  # noqa: E402
from governance.services.journal import GENESIS_HASH, LEAF_PREFIX  # noqa: E402
from lineage.merkle import MerkleTree  # noqa: E402
from lineage.telemetry import get_telemetry  # noqa: E402

DECIDED = {"approval.approved", "approval.denied", "approval.expired", "approval.voided"}
JWT = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}")
SECRET_MIN_CHARACTERS = 16


def goals() -> Iterator[str]:
    """Every accepted Goal is in one terminal phase, which it entered once, or waits for a human."""
    entered: Counter[tuple[str, int]] = Counter()
    created = set()
    for record in JournalRecord.objects.filter(object_kind="goal").order_by("seq"):
        body = json.loads(record.canonical)["body"]
        if record.action == "goal.created":
            created.add(record.object_id)
        if record.action == "goal.phase" and Phase(body["to"]) in TERMINAL_PHASES:
            entered[record.object_id, body["generation"]] += 1
    for goal in Goal.objects.all():
        waits = Approval.objects.filter(goal_uid=goal.uid, state=ApprovalState.PENDING).count()
        times = entered[str(goal.uid), goal.generation]
        created.discard(str(goal.uid))
        if goal.is_landed and times != 1:
            yield f"goal {goal} is {goal.phase} and entered a terminal phase {times} times"
        if not goal.is_landed and not (goal.phase == Phase.PAUSED and waits == 1):
            yield f"goal {goal} is {goal.phase} with {waits} open approvals"
        if goal.is_landed and waits:
            yield f"goal {goal} has landed with {waits} open approvals"
        if goal.is_landed and goal.lease_owner:
            yield f"goal {goal} has landed and is still leased to {goal.lease_owner}"
    for lost in created:
        yield f"goal {lost} was accepted and is gone"


def attempts() -> Iterator[str]:
    """One attempt of a task at a time, numbered without a gap, none left running."""
    of_task: dict[tuple[Any, ...], list[Attempt]] = defaultdict(list)
    for attempt in Attempt.objects.order_by("number"):
        key = (attempt.goal_uid, attempt.graph_digest, attempt.iteration, attempt.task)
        of_task[key].append(attempt)
        goal = Goal.objects.get(pk=attempt.goal_uid)
        if goal.is_landed and attempt.state in ACTIVE_STATES:
            yield f"attempt {attempt} is active under a landed Goal"
        if attempt.is_finished and attempt.identity_revoked_at is None:
            yield f"attempt {attempt} has ended with a valid identity"
    for key, each in of_task.items():
        if [one.number for one in each] != list(range(1, len(each) + 1)):
            yield f"attempts of {key} are numbered {[one.number for one in each]}"
        for earlier, later in itertools.pairwise(each):
            if earlier.finished_at is None or earlier.finished_at > later.created_at:
                yield f"attempts {earlier} and {later} overlap"
    for task in Task.objects.exclude(state="succeeded"):
        won = of_task[task.goal_id, task.graph_digest, task.iteration, task.name]
        if task.goal.is_landed and task.goal.phase == Phase.SATISFIED:
            yield f"task {task} of a satisfied Goal, attempts {won}"
    known = set(Attempt.objects.values_list("workload", flat=True))
    for status in get_cluster().list():
        if status.name not in known:
            yield f"workload {status.name} has no attempt"
        pid = status.pid
        if status.is_finished and pid and _is_program_alive(pid, status.name):
            yield f"workload {status.name} is finished and its process {pid} lives"


def _is_program_alive(pid: int, workload: str) -> bool:
    try:
        return workload in os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False


def ledger() -> Iterator[str]:
    """Accounts balance, nothing is overspent, and what was settled is what was metered."""
    for account in Account.objects.all():
        if not is_balanced(account) or account.overrun:
            yield f"account {account} is off balance or overrun by {account.overrun}"
        if account.goal.is_landed and account.reserved:
            yield f"account {account} of a landed Goal still reserves {account.reserved}"
        if account.goal.is_landed and account.available:
            yield f"account {account} of a landed Goal still has {account.available}"
    for attempt in Attempt.objects.filter(gpus__gt=0):
        status = get_cluster().get(attempt.workload)
        entries = LedgerEntry.objects.filter(attempt_uid=attempt.uid, account__unit="gpu_ms")
        sums = {
            kind: entries.filter(kind=kind).aggregate(total=Sum("amount"))["total"] or 0
            for kind in (EntryKind.RESERVE, EntryKind.SETTLE, EntryKind.RELEASE)
        }
        metered = status.gpu_ms if status is not None else 0
        owed = min(metered, sums[EntryKind.RESERVE])
        if sums[EntryKind.SETTLE] != attempt.gpu_settled_ms or attempt.gpu_settled_ms != owed:
            yield (
                f"attempt {attempt}: settled {sums[EntryKind.SETTLE]}, noted "
                f"{attempt.gpu_settled_ms}, metered {metered}, reserved {sums[EntryKind.RESERVE]}"
            )
        if attempt.is_finished and sums[EntryKind.RESERVE] != (
            sums[EntryKind.SETTLE] + sums[EntryKind.RELEASE]
        ):
            yield f"attempt {attempt} has ended and holds budget: {sums}"


def approvals() -> Iterator[str]:
    """One decision each, by somebody who may, applied once."""
    decided = Counter(
        JournalRecord.objects.filter(action__in=DECIDED).values_list("object_id", flat=True)
    )
    for approval in Approval.objects.all():
        wanted = 0 if approval.state == ApprovalState.PENDING else 1
        if decided[str(approval.uid)] != wanted:
            yield f"approval {approval.uid} ({approval.state}): {decided[str(approval.uid)]} ends"
        if approval.decided_by and approval.decided_by in approval.barred:
            yield f"approval {approval.uid} was decided by {approval.decided_by}, who is barred"
        grants = LedgerEntry.objects.filter(approval_uid=approval.uid, kind=EntryKind.GRANT).count()
        if grants != (1 if approval.state == ApprovalState.APPROVED else 0):
            yield f"approval {approval.uid} ({approval.state}) granted {grants} times"
    digests = Approval.objects.values_list("request_digest", flat=True)
    for digest, times in Counter(digests).items():
        if times != 1:
            yield f"request {digest} was asked {times} times"


def identities() -> Iterator[str]:
    """A join token was traded by one key only."""
    exchanged: dict[str, set[str]] = defaultdict(set)
    for record in JournalRecord.objects.filter(action="svid.issued"):
        body = json.loads(record.canonical)["body"]
        if body["cause"] == "join-token":
            exchanged[record.object_id].add(body["key_thumbprint"])
    for uid, keys in exchanged.items():
        if len(keys) != 1:
            yield f"attempt {uid} traded its join token with {len(keys)} keys"
        if JoinToken.objects.get(attempt_id=uid).used_at is None:
            yield f"attempt {uid} was identified and its join token is unused"


def releases() -> Iterator[str]:
    """Numbered without a gap, one in force, each change of digest made once."""
    numbers: dict[tuple[str, ...], list[Release]] = defaultdict(list)
    for release in Release.objects.order_by("number"):
        numbers[release.namespace, release.service, release.environment].append(release)
    for key, each in numbers.items():
        if [one.number for one in each] != list(range(1, len(each) + 1)):
            yield f"releases of {key} are numbered {[one.number for one in each]}"
        if sum(one.state == "active" for one in each) != 1:
            yield f"releases of {key}: {[one.state for one in each]}"
        in_force = [one for one in each if one.state in ("active", "superseded")]
        for before, after in itertools.pairwise(in_force):
            if after.digest == before.digest:
                yield f"release {after} of {key} changes nothing"
            if after.previous_digest != before.digest:
                yield f"release {after} of {key} does not follow {before}"


def journal() -> Iterator[str]:
    """An unbroken chain of the bytes that were hashed, under every checkpoint."""
    tree, prev, size = MerkleTree(), GENESIS_HASH, 0
    for record in JournalRecord.objects.order_by("seq").iterator():
        content = record.canonical.encode()
        digest = hashlib.sha256(content).hexdigest()
        leaf = hashlib.sha256(LEAF_PREFIX + content).digest()
        if (record.seq, json.loads(content)["prev"]) != (size, prev):
            yield f"record {record.seq} does not follow {size - 1}"
        if (record.hash, bytes(record.leaf_hash)) != (digest, leaf):
            yield f"record {record.seq} is not what was hashed"
        tree.append(leaf)
        prev, size = digest, size + 1
    head = JournalHead.objects.get()
    if (head.size, head.last_hash) != (size, prev):
        yield f"the head says {head.size}, the chain has {size}"
    for checkpoint in Checkpoint.objects.all():
        root = tree.root(checkpoint.size)
        if root.hex() != checkpoint.root_hash or base64.b64encode(root).decode() not in (
            checkpoint.note
        ):
            yield f"checkpoint {checkpoint.size} does not hold"


def spans() -> Iterator[str]:
    """Every span that was acknowledged, or that a row names, is there."""
    stored: set[str] = set()
    for goal in Goal.objects.all():
        cursor = ""
        while True:
            page = get_telemetry().goal_spans(
                goal.namespace, str(goal.uid), cursor=cursor, limit=1000
            )
            ids = [span.span_id for span in page.spans]
            if len(set(ids)) != len(ids) or stored & set(ids):
                yield f"spans of {goal} are there twice"
            stored |= set(ids)
            cursor = page.next_cursor
            if not cursor:
                break
    acknowledged = _acknowledged()
    if missing := acknowledged - stored:
        yield f"{len(missing)} of {len(acknowledged)} acknowledged spans are gone"
    for attempt in Attempt.objects.filter(state="succeeded").prefetch_related("outputs"):
        named = {output.span_id for output in attempt.outputs.all()} - {""}
        if not named <= stored:
            yield f"outputs of {attempt} name spans that are not there"
    for goal in Goal.objects.exclude(measured_span_id=""):
        if goal.measured_span_id not in stored:
            yield f"goal {goal} was measured by a span that is not there"


def _acknowledged() -> set[str]:
    found: set[str] = set()
    for path in (settings.CLEARANCE_DATA / "cluster" / "workloads").glob("*/output.log"):
        for line in path.read_text(errors="replace").splitlines():
            first, *ids = line.split() or [""]
            if first == "acknowledged":
                found |= {word for word in ids if len(word) == 16}
    return found


def secrets() -> Iterator[str]:
    """No key, token or password in anything that is a log."""
    known = {*_kept_secrets(), *json.loads(os.environ.get("KILL_SECRETS", "[]"))}
    known |= {_join_secret(attempt) for attempt in Attempt.objects.all()}
    for path in logs():
        text = path.read_text(errors="replace")
        if JWT.search(text):
            yield f"{path.name} has a JWT in it"
        for secret in known:
            if secret in text:
                yield f"{path} has a secret in it ({secret[:4]}…)"


def logs() -> list[Path]:
    """Whatever the tower and its workloads have written to be read."""
    data = settings.CLEARANCE_DATA
    found = [*(data / "logs").rglob("*"), *(data / "cluster").rglob("*.log")]
    return [path for path in found if path.is_file()]


def _kept_secrets() -> set[str]:
    found = {settings.SECRET_KEY}
    for path in [*(settings.CLEARANCE_DATA / "keys").rglob("*"), *_tokens()]:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if "PRIVATE KEY" in text:
            found |= {line for line in text.splitlines() if "-" not in line}
        elif path.suffix == ".token" or path.name == "secret_key":
            found.add(text.strip())
    return {word for word in found if len(word) >= SECRET_MIN_CHARACTERS}


def _tokens() -> Iterator[Path]:
    return (settings.CLEARANCE_DATA / "example").glob("*.token")


CHECKS = (goals, attempts, ledger, approvals, identities, releases, journal, spans, secrets)


def main() -> int:
    """Run every check."""
    counts = {
        "goals": Goal.objects.count(),
        "attempts": Attempt.objects.count(),
        "entries": LedgerEntry.objects.count(),
        "approvals": Approval.objects.count(),
        "releases": Release.objects.count(),
        "records": JournalRecord.objects.count(),
        "checkpoints": Checkpoint.objects.count(),
        "acknowledged": len(_acknowledged()),
        "logs": len(logs()),
        "secrets": len(_kept_secrets()),
    }
    wanted = os.environ.get("KILL_CHECKS", "").split()
    checks = [check for check in CHECKS if not wanted or check.__name__ in wanted]
    problems = [f"{check.__name__}: {problem}" for check in checks for problem in check()]
    states = Counter(f"{goal.phase} {goal.landing_reason}".strip() for goal in Goal.objects.all())
    ends = Counter(f"{one.state} {one.reason}".strip() for one in Attempt.objects.all())
    print(json.dumps({"problems": problems, "counts": counts, "goals": states, "attempts": ends}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
