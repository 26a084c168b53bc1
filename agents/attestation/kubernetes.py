"""Attestation by Kubernetes: TokenReview, the pod behind the token, and the Job behind the pod."""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from agents.attestation.base import (
    TOKEN_MAX_CHARACTERS,
    AttestationUnavailable,
    AttestedPod,
    TokenRefused,
    Withdrawal,
)
from agents.cluster.base import Cluster, ClusterError
from agents.cluster.kubernetes.api import (
    KubernetesApi,
    ObjectAbsent,
    ObjectConflict,
    ObjectRefused,
    TooManyRequests,
    object_path,
)
from agents.cluster.kubernetes.reading import is_ending, is_over
from agents.cluster.kubernetes.record import WORKLOAD, read_record

Object = dict[str, Any]

REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
JOBS: Final = "apis/batch/v1/jobs"
PODS: Final = "api/v1/pods"
SECRETS: Final = "api/v1/secrets"
ACCOUNT_PREFIX: Final = "system:serviceaccount:"
# Claims of a token that is bound to a pod, as TokenReview gives them.
POD_NAME: Final = "authentication.kubernetes.io/pod-name"
POD_UID: Final = "authentication.kubernetes.io/pod-uid"
# So long may a disruption budget hold an eviction back; then the pod is deleted all the same.
EVICTION_SECONDS: Final = 5.0
EVICTION_PAUSE_SECONDS: Final = 0.5
AT_ONCE: Final = 8  # tokens that are reviewed at the same time; each takes some 10 ms
TURN_SECONDS: Final = 2.0  # then the SDK asks again, later


class KubernetesAttestor:
    """Vouches for pods of one context; only a pod that a Job of ours made is vouched for."""

    def __init__(
        self,
        api: KubernetesApi,
        cluster: Cluster,
        *,
        audience: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api = api
        self._cluster = cluster
        self._audience = audience
        self._clock = clock
        self._sleep = sleep
        self._turns = threading.BoundedSemaphore(AT_ONCE)

    @property
    def audience(self) -> str:
        return self._audience

    def attest(self, token: str) -> AttestedPod:
        """Ask for the token, then for the pod, its Job and its siblings.

        Anybody may show a token, so what it says itself is looked at first, and only so many are
        looked into at the same time: strangers must not load the API server through us.
        """
        self._look_at(token)
        if not self._turns.acquire(timeout=TURN_SECONDS):
            raise AttestationUnavailable("Too many tokens are being reviewed; try again.")
        try:
            return self._attest(token)
        finally:
            self._turns.release()

    def _attest(self, token: str) -> AttestedPod:
        try:
            namespace, account, name, uid = self._review(token)
            pod = self._pod(namespace, name, uid)
            job = self._job(pod)
            self._refuse_second(job, uid)
        except ObjectAbsent as error:
            raise TokenRefused("The token's pod is no pod of an attempt any more.") from error
        except ClusterError as error:
            raise AttestationUnavailable(f"Kubernetes cannot be asked: {error}") from error
        spec = pod["spec"]
        if spec.get("serviceAccountName") != account:
            raise TokenRefused(f"The token's pod does not run as service account {account}.")
        record = read_record(job)
        if record is None:
            raise TokenRefused("The token's pod belongs to a Job that is not of Clearance.")
        return AttestedPod(
            namespace=namespace,
            service_account=account,
            pod=name,
            pod_uid=uid,
            workload=job["metadata"]["name"],
            attempt_uid=record.attempt,
            node=spec.get("nodeName", ""),
        )

    def withdraw(self, workload: str, *, namespace: str) -> Withdrawal:
        """Evict the pods, which ends their tokens, delete the Secret, and end the Job."""
        try:
            pods = [pod for pod in self._pods_of(workload, namespace) if not is_over(pod)]
            evicted, deleted = self._evict(pods)
            secret = self._delete_secret(object_path(SECRETS, namespace, workload))
            self._cluster.delete(workload, grace_seconds=0.0)
        except ClusterError as error:
            raise AttestationUnavailable(f"Kubernetes cannot be asked: {error}") from error
        return Withdrawal(evicted, deleted, secret)

    # --- attesting -------------------------------------------------------------------------------

    def _look_at(self, token: str) -> None:
        """Refuse what cannot be good; nothing of it is believed."""
        if not token or len(token) > TOKEN_MAX_CHARACTERS or not token.isascii():
            raise TokenRefused("The service account token is no token.")
        _, _, rest = token.partition(".")
        body, dot, _ = rest.partition(".")
        try:
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            audience = claims["aud"]
            is_bound = "pod" in (claims.get("kubernetes.io") or {})
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise TokenRefused("The service account token is no token.") from error
        audiences = audience if isinstance(audience, list) else [audience]
        if not dot or self._audience not in audiences:
            raise TokenRefused(
                f"Kubernetes does not accept the token for audience {self._audience}."
            )
        if not is_bound:
            raise TokenRefused("The token is not bound to a pod.")

    def _review(self, token: str) -> tuple[str, str, str, str]:
        """Namespace, service account, pod and pod uid of a token that the API server accepts."""
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        status = self._api.create(REVIEWS, asked).get("status") or {}
        # An API server that knows no audiences lists none, and has not checked ours.
        if not status.get("authenticated") or self._audience not in (status.get("audiences") or []):
            raise TokenRefused(
                f"Kubernetes does not accept the token for audience {self._audience}."
            )
        user = status.get("user") or {}
        prefix, _, account = str(user.get("username", "")).rpartition(":")
        if not prefix.startswith(ACCOUNT_PREFIX):
            raise TokenRefused("The token is not a service account's.")
        extra = user.get("extra") or {}
        names, uids = extra.get(POD_NAME) or [], extra.get(POD_UID) or []
        if len(names) != 1 or len(uids) != 1:
            raise TokenRefused("The token is not bound to a pod.")
        return prefix.removeprefix(ACCOUNT_PREFIX), account, str(names[0]), str(uids[0])

    def _pod(self, namespace: str, name: str, uid: str) -> Object:
        pod = self._api.get(object_path(PODS, namespace, name))
        if pod["metadata"]["uid"] != uid or is_ending(pod) or is_over(pod):
            raise TokenRefused("The pod that the token is bound to has ended or is ending.")
        return pod

    def _job(self, pod: Object) -> Object:
        metadata = pod["metadata"]
        for owner in metadata.get("ownerReferences") or []:
            if owner.get("controller") and owner.get("kind") == "Job":
                job = self._api.get(object_path(JOBS, metadata["namespace"], owner["name"]))
                if job["metadata"]["uid"] == owner["uid"]:
                    return job
        raise TokenRefused("The pod that the token is bound to belongs to no Job.")

    def _refuse_second(self, job: Object, uid: str) -> None:
        """An attempt has one pod at a time: with two, nobody can say which is the true one."""
        others = [
            pod
            for pod in self._pods_of(job["metadata"]["name"], job["metadata"]["namespace"])
            if pod["metadata"]["uid"] != uid and not is_over(pod)
        ]
        if others:
            raise TokenRefused("The attempt has another pod that has not ended.")

    def _pods_of(self, workload: str, namespace: str) -> Sequence[Object]:
        path = object_path(PODS, namespace)
        return [*self._api.items(path, labelSelector=f"{WORKLOAD}={workload}")]

    # --- withdrawing -----------------------------------------------------------------------------

    def _evict(self, pods: Sequence[Object]) -> tuple[list[str], list[str]]:
        """Names of the pods that were evicted, and of those that had to be deleted."""
        give_up_at = self._clock() + EVICTION_SECONDS
        evicted, deleted = [], []
        for pod in pods:
            name = pod["metadata"]["name"]
            while not (is_evicted := self._is_evicted(pod)) and self._clock() < give_up_at:
                self._sleep(EVICTION_PAUSE_SECONDS)
            if is_evicted:
                evicted.append(name)
                continue
            with contextlib.suppress(ObjectConflict):  # another of that name is there
                self._api.delete(_path(pod), **_end(pod))
            deleted.append(name)
        return evicted, deleted

    def _is_evicted(self, pod: Object) -> bool:
        """False while a disruption budget forbids it."""
        metadata = pod["metadata"]
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "deleteOptions": _end(pod),
        }
        try:
            self._api.create(f"{_path(pod)}/eviction", eviction)
        except (TooManyRequests, ObjectRefused):
            return False
        except (ObjectAbsent, ObjectConflict):
            return True  # gone, and perhaps another of that name is there
        return True

    def _delete_secret(self, path: str) -> str:
        """Name of the attempt's Secret, when there was one."""
        try:
            name = str(self._api.get(path)["metadata"]["name"])
        except ObjectAbsent:
            return ""
        self._api.delete(path)
        return name


def _path(pod: Object) -> str:
    metadata = pod["metadata"]
    return object_path(PODS, metadata["namespace"], metadata["name"])


def _end(pod: Object) -> Object:
    """At once, and only this very pod: no SIGTERM gives a revoked program time to act."""
    return {"gracePeriodSeconds": 0, "preconditions": {"uid": pod["metadata"]["uid"]}}
