"""Questions about an open approval and their answers; the clock of the approval runs on."""

from typing import Final

from django.contrib.auth.models import User

from governance.access import Principal, may_decide
from governance.domain import (
    ApprovalConflict,
    ApprovalForbidden,
    ApprovalInvalid,
    ApprovalState,
    Permission,
)
from governance.models import Approval, ApprovalMessage
from governance.services.approvals import (
    checked_reason,
    plain_text,
    why_not_open,
)
from governance.services.journal import append_record, journaled
from governance.signals import approval_touched

OPERATORS: Final = "operators"  # whoever may operate in the approval's namespace
MESSAGES_MAX: Final = 50  # of one approval: a thread, not a forum
__all__ = ["OPERATORS", "ask_about_approval", "may_reply", "reply_about_approval", "whom_to_ask"]


def whom_to_ask(approval: Approval) -> list[str]:
    """Who can be asked: the people behind the request, and those who operate there."""
    names = dict.fromkeys([approval.requested_by, *approval.barred])
    people = User.objects.filter(username__in=list(names), is_active=True)
    known = set(people.values_list("username", flat=True))
    return [*(name for name in names if name in known), OPERATORS]


def may_reply(principal: Principal, approval: Approval) -> str:
    """Why this person may not answer questions about this approval, or "" when they may."""
    if approval.state != ApprovalState.PENDING:
        return f"This approval is {approval.state}."
    involved = {approval.requested_by, approval.waits_on, *approval.barred}
    if principal.username in involved or principal.may(
        Permission.OPERATE, namespace=approval.namespace
    ):
        return ""
    return f"Replying is for who was asked and for operators of namespace {approval.namespace}."


def ask_about_approval(
    approval: Approval, *, principal: Principal, to: str, body: str
) -> ApprovalMessage:
    """Ask before answering: the approval stays open and waits on `to`; its time runs on.

    The same question again while it is open is the same question. Raises ApprovalForbidden,
    ApprovalInvalid, ApprovalConflict.
    """
    if approval.state == ApprovalState.PENDING and (why := may_decide(principal, approval)):
        raise ApprovalForbidden(why)
    choices = whom_to_ask(approval)
    if to not in choices:
        raise ApprovalInvalid(f"to: one of {', '.join(choices)}, not {plain_text(to)[:80]!r}.")
    return _write(approval, principal, body=body, asked=to)


def reply_about_approval(approval: Approval, *, principal: Principal, body: str) -> ApprovalMessage:
    """Answer what was asked; the approval waits on its approvers again.

    Raises ApprovalForbidden, ApprovalInvalid, ApprovalConflict.
    """
    if approval.state == ApprovalState.PENDING and (why := may_reply(principal, approval)):
        raise ApprovalForbidden(why)
    return _write(approval, principal, body=body, asked="")


def _write(approval: Approval, principal: Principal, *, body: str, asked: str) -> ApprovalMessage:
    try:
        body = checked_reason(body)
    except ApprovalInvalid as error:
        raise ApprovalInvalid(str(error).replace("reason: say why", "text: say it", 1)) from None
    with journaled():
        approval.refresh_from_db()
        if approval.state != ApprovalState.PENDING:
            raise ApprovalConflict(why_not_open(approval))
        said = list(approval.messages.all()[:MESSAGES_MAX])
        last = said[-1] if said else None
        if last and (last.author, last.asked, last.body) == (principal.username, asked, body):
            return last
        if len(said) == MESSAGES_MAX:
            raise ApprovalInvalid(f"text: {MESSAGES_MAX} messages are enough: approve or deny.")
        message = approval.messages.create(author=principal.username, asked=asked, body=body)
        Approval.objects.filter(pk=approval.pk).update(waits_on=asked)
        approval.waits_on = asked
        _journal(approval, message, principal)
        approval_touched.send(sender=Approval, approval=approval)
    return message


def _journal(approval: Approval, message: ApprovalMessage, principal: Principal) -> None:
    append_record(
        action="approval.question" if message.asked else "approval.reply",
        actor=principal.actor,
        object_kind="approval",
        object_id=str(approval.uid),
        namespace=approval.namespace,
        goal_uid=approval.goal_uid,
        body={"message": str(message.uid), "asked": message.asked, "text": message.body},
    )
