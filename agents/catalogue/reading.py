"""Reads what a cluster runs and who may do what there, a page at a time, into template facts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

from agents.catalogue.domain import (
    DEFAULT_ACCOUNT,
    TemplateFacts,
    creates_workloads,
)
from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.record import WORKLOAD
from agents.survey.domain import WORKLOADS_MAX, Holder, Kind, PodFact
from agents.survey.reading import (
    IMAGES_KEPT,
    TEXT_MAX,
    gpu_resources,
    is_system,
    variable_names,
)

Object = Mapping[str, Any]

# The kinds whose templates start pods, with where their template is.
TEMPLATES: Final = (
    (Kind.DEPLOYMENT, "/apis/apps/v1/deployments"),
    (Kind.STATEFUL_SET, "/apis/apps/v1/statefulsets"),
    (Kind.DAEMON_SET, "/apis/apps/v1/daemonsets"),
    (Kind.CRON_JOB, "/apis/batch/v1/cronjobs"),
    (Kind.JOB, "/apis/batch/v1/jobs"),
)
ACCOUNTS: Final = "/api/v1/serviceaccounts"
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
RULES_KEPT: Final = 50  # of one account
EVERYBODY: Final = "system:serviceaccounts"  # the group of all accounts; with :namespace, of one
AUTHENTICATED: Final = "system:authenticated"


class Lists(Protocol):
    """Lists objects (`agents.cluster.kubernetes.api.KubernetesApi`)."""

    def pages_at(self, path: str) -> Iterator[tuple[list[dict[str, Any]], str]]: ...


@dataclass(slots=True)
class Scan:
    """What one look found; `troubles` are lists that could not be read, with the reason.

    `unread` are the kinds of which nothing is known: their rows stay as they were.
    """

    facts: list[TemplateFacts] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)


def scan_cluster(api: Lists, *, pods: Iterable[PodFact] = ()) -> Scan:
    """Look at everything once. A list that is refused is said, and the others are read.

    `pods` are those that are known anyway: the ones without an owner are entries, too.
    """
    scan = Scan()
    rights = _Rights()
    for path, take in (
        (f"{RBAC}/clusterroles", rights.add_cluster_role),
        (f"{RBAC}/roles", rights.add_role),
        (f"{RBAC}/clusterrolebindings", rights.bind_everywhere),
        (f"{RBAC}/rolebindings", rights.bind),
    ):
        if not _each(api, path, take, scan):
            rights.are_known = False
    for kind, path in TEMPLATES:
        if not _each(api, path, partial(_add, scan, rights, kind), scan):
            scan.unread.add(kind)
    for pod in pods:
        if pod.holder.kind == Kind.POD and not pod.workload and not pod.is_system:
            _keep(scan, rights.told(_of_pod(pod)))
    if not _each(api, ACCOUNTS, lambda one: _add_account(scan, one, rights), scan):
        scan.unread.add(Kind.SERVICE_ACCOUNT)
    return scan


def _each(api: Lists, path: str, take: Callable[[Object], None], scan: Scan) -> bool:
    try:
        for items, _ in api.pages_at(path):
            for one in items:
                take(one)
    except ClusterError as error:
        scan.troubles.append(f"{path}: {error}"[:500])
        return False
    return True


def _add(scan: Scan, rights: "_Rights", kind: Kind, found: Object) -> None:
    metadata = found["metadata"]
    labels = metadata.get("labels") or {}
    is_owned = any(one.get("controller") for one in metadata.get("ownerReferences") or [])
    if not (WORKLOAD in labels or is_system(metadata) or is_owned):
        _keep(scan, rights.told(read_template(kind, found)))


def _keep(scan: Scan, facts: TemplateFacts) -> None:
    if len(scan.facts) < WORKLOADS_MAX:
        scan.facts.append(facts)


def _of_pod(pod: PodFact) -> TemplateFacts:
    return TemplateFacts(
        holder=pod.holder,
        images=pod.images,
        variables=pod.variables,
        service_account=pod.service_account,
        gpus=sum(pod.gpus.values()),
    )


def _add_account(scan: Scan, found: Object, rights: "_Rights") -> None:
    metadata = found["metadata"]
    if is_system(metadata):
        return
    holder = Holder(Kind.SERVICE_ACCOUNT, metadata["namespace"], metadata["name"])
    _keep(scan, rights.told(TemplateFacts(holder=holder, service_account=metadata["name"])))


def read_template(kind: Kind, found: Object) -> TemplateFacts:
    """A workload's template, without any value of a variable."""
    metadata, spec = found["metadata"], found.get("spec") or {}
    template = spec
    if kind == Kind.CRON_JOB:
        template = (spec.get("jobTemplate") or {}).get("spec") or {}
    pod = (template.get("template") or {}).get("spec") or {}
    containers = [*(pod.get("containers") or [])]
    every = [*containers, *(pod.get("initContainers") or [])]
    limits = [(one.get("resources") or {}).get("limits") or {} for one in containers]
    replicas = spec.get("replicas")
    return TemplateFacts(
        holder=Holder(kind, metadata["namespace"], metadata["name"]),
        images=tuple(str(one.get("image", ""))[:TEXT_MAX] for one in every[:IMAGES_KEPT]),
        command=tuple(
            str(word)
            for one in containers[:1]
            for word in [*(one.get("command") or ()), *(one.get("args") or ())]
        ),
        variables=variable_names(every),
        service_account=pod.get("serviceAccountName") or DEFAULT_ACCOUNT,
        gpus=sum(sum(gpu_resources(one).values()) for one in limits),
        memory=str(limits[0].get("memory", ""))[:32] if limits else "",
        schedule=str(spec.get("schedule", ""))[:TEXT_MAX] if kind == Kind.CRON_JOB else "",
        time_zone=str(spec.get("timeZone") or "")[:64],
        replicas=replicas if isinstance(replicas, int) else None,
        is_suspended=bool(spec.get("suspend")),
    )


class _Rights:
    """Which RBAC rules hold for which service account, from roles and bindings."""

    def __init__(self) -> None:
        self._roles: dict[tuple[str, str], list[Object]] = {}  # namespace ("" of all), name
        self._rules: dict[tuple[str, str], list[Object]] = {}  # namespace, account
        self.are_known = True

    def add_cluster_role(self, found: Object) -> None:
        self._roles["", found["metadata"]["name"]] = list(found.get("rules") or [])

    def add_role(self, found: Object) -> None:
        metadata = found["metadata"]
        self._roles[metadata["namespace"], metadata["name"]] = list(found.get("rules") or [])

    def bind_everywhere(self, found: Object) -> None:
        self._bind(found, self._referred(found, ""))

    def bind(self, found: Object) -> None:
        self._bind(found, self._referred(found, found["metadata"]["namespace"]))

    def _referred(self, found: Object, namespace: str) -> list[Object]:
        role = found.get("roleRef") or {}
        where = namespace if role.get("kind") == "Role" else ""
        return self._roles.get((where, str(role.get("name", ""))), [])

    def _bind(self, found: Object, rules: list[Object]) -> None:
        for subject in found.get("subjects") or []:
            kind, name = subject.get("kind"), str(subject.get("name", ""))
            if kind == "ServiceAccount":
                space = subject.get("namespace") or found["metadata"].get("namespace", "")
                self._rules.setdefault((space, name), []).extend(rules)
            elif kind == "Group" and name in (EVERYBODY, AUTHENTICATED):
                self._rules.setdefault(("", ""), []).extend(rules)
            elif kind == "Group" and name.startswith(f"{EVERYBODY}:"):
                space = name.removeprefix(f"{EVERYBODY}:")
                self._rules.setdefault((space, ""), []).extend(rules)

    def told(self, facts: TemplateFacts) -> TemplateFacts:
        """The facts with what their account may do. Rules that everybody has start nothing."""
        space, account = facts.holder.namespace, facts.service_account
        own = self._rules.get((space, account), [])
        shared = [*self._rules.get((space, ""), []), *self._rules.get(("", ""), [])]
        return replace(
            facts,
            are_rights_known=self.are_known,
            may_create=creates_workloads([*own, *shared]),
            rules=tuple(_plain(rule) for rule in own[:RULES_KEPT]),
        )


def _plain(rule: Object) -> dict[str, Any]:
    """A rule as a Role may hold it: paths of the server itself belong to no namespace."""
    keys = ("apiGroups", "resources", "resourceNames", "verbs")
    return {key: list(rule[key]) for key in keys if rule.get(key)}
