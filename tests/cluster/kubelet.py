"""A kubelet for tests: pods of its node run as real processes of this machine, without images.

`python -m tests.cluster.kubelet --kubeconfig FILE --node NAME --directory DIRECTORY` is a node;
`kubelet(...)` starts one and ends it. The scheduler, the API server, tokens and deletion are the
cluster's own; only the container runtime is replaced: a pod's command runs in a directory that
looks like this checkout, `python` is this interpreter, every pod has the address 127.0.0.1.
Mount paths under /var/run are real where mount namespaces are allowed; all other mount paths are
replaced by the real ones in the values of variables and in words of the command.
"""

import argparse
import contextlib
import datetime as dt
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from agents.cluster.base import ClusterError
from agents.cluster.kubernetes.api import KubernetesApi, ObjectAbsent, ObjectConflict, object_path
from tests.cluster.pod_files import ADDRESS, MissingMaterial, PodFiles, expand, relocate, relocated
from tests.cluster.pod_logs import serve_logs
from tests.cluster.pod_process import CannotStart, Image, Running, can_mount, start
from tests.with_servers import with_parent_death

Object = dict[str, Any]

PODS: Final = "api/v1/pods"
LEASES: Final = "apis/coordination.k8s.io/v1/leases"
LABEL: Final = "clearance.test/processes"  # of nodes whose pods are real processes
LOOK_SECONDS: Final = 0.2
LEASE_SECONDS: Final = 5.0
BACK_OFF_SECONDS: Final = (0.5, 10.0)  # before a container is started again: first, longest
PROBE_SECONDS: Final = 2.0  # a probe that answers later has failed
ROOT: Final = Path(__file__).resolve().parents[2]
LOST: Final = 137  # exit code of a container that died with an earlier kubelet


def now() -> str:
    """This moment, as the API server writes it, to the microsecond."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Container:
    """One container of a pod over all its starts."""

    spec: Object
    is_init: bool = False
    running: Running | None = None
    started_at: str = ""
    ended: Object | None = None  # the `terminated` state of the last run
    waiting: Object = field(default_factory=lambda: {"reason": "PodInitializing"})
    restarts: int = 0
    start_at: float = 0.0  # monotonic, of the next try
    is_ready: bool = False
    probe_at: float = 0.0

    def status(self) -> Object:
        """Its entry in containerStatuses."""
        state: Object = {"waiting": self.waiting}
        if self.running is not None:
            state = {"running": {"startedAt": self.started_at}}
        elif self.ended is not None:
            state = {"terminated": self.ended}
        return {
            "name": self.spec["name"], "image": self.spec["image"], "imageID": "",
            "ready": self.is_ready, "started": self.running is not None,
            "restartCount": self.restarts, "state": state,
        }  # fmt: skip


class Pod:
    """Takes one pod from its start to its end; `step` again and again does what is due."""

    def __init__(self, kubelet: "Kubelet", pod: Object) -> None:
        self._kubelet = kubelet
        self.pod = pod
        self.uid = str(pod["metadata"]["uid"])
        self._directory = kubelet.directory / "pods" / self.uid
        self._files = PodFiles(kubelet.api, pod, self._directory, server=kubelet.server)
        spec = pod["spec"]
        self._inits = [Container(one, is_init=True) for one in spec.get("initContainers") or []]
        self._mains = [Container(one) for one in spec["containers"]]
        self._started_at = now()
        self._told = ""
        self._is_gone = False
        known = (pod.get("status") or {}).get("phase")
        if known == "Running":  # by an earlier kubelet, with which its processes died
            for one in self._mains:
                one.started_at = now()
                one.ended = _terminated(LOST, one.started_at)

    def step(self, pod: Object) -> None:
        """Do what is due now. Raises `ClusterError`s: the next step tries again."""
        self.pod = self._files.pod = pod
        for one in (*self._inits, *self._mains):
            self._notice_end(one)
        if self.pod["metadata"].get("deletionTimestamp"):
            self._end()
            return
        if self.phase() in ("Pending", "Running"):
            self._start_due()
            self._files.refresh_tokens()
            for one in self._mains:
                self._probe(one)
        self._tell()

    def log(self, container: str) -> Path:
        """What a container wrote, over all its starts."""
        return self._directory / f"{container}.log"

    def phase(self) -> str:
        """As a kubelet computes it."""
        policy = self.pod["spec"].get("restartPolicy", "Always")
        if any(one.ended and one.ended["exitCode"] for one in self._inits) and policy == "Never":
            return "Failed"
        if all(one.running is None and one.ended is None for one in self._mains):
            return "Pending"
        over = [one.ended for one in self._mains if one.running is None and one.ended is not None]
        if len(over) < len(self._mains) or policy == "Always":
            return "Running"
        failed = any(ended["exitCode"] for ended in over)
        if failed and policy == "OnFailure":
            return "Running"
        return "Failed" if failed else "Succeeded"

    def kill(self) -> None:
        """The pod is no longer there, or the kubelet ends."""
        for one in (*self._inits, *self._mains):
            if one.running is not None:
                one.running.kill()
                one.running = None
        self._files.remove()

    # --- starting --------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for one in self._inits:
            if one.ended is None or one.ended["exitCode"]:
                self._start(one)
                return  # one after the other
        for one in self._mains:
            self._start(one)

    def _start(self, container: Container) -> None:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        if container.running is not None or time.monotonic() < container.start_at:
            return
        if container.ended is not None:
            has_failed = bool(container.ended["exitCode"])
            if policy == "Never" or (
                not has_failed and (policy == "OnFailure" or container.is_init)
            ):
                return
        try:
            self._files.write_volumes()
            self._run(container)
        except MissingMaterial as error:
            self._wait(container, "CreateContainerConfigError", str(error))
        except (CannotStart, OSError) as error:
            self._wait(container, "CreateContainerError", str(error))

    def _run(self, container: Container) -> None:
        spec, kubelet = container.spec, self._kubelet
        mounts = self._files.mounts(spec)
        real = {m: p for m, p in mounts.items() if kubelet.has_mounts and m.startswith("/var/run/")}
        moved = {mount: path for mount, path in mounts.items() if mount not in real}
        environment = self._files.environment(spec)
        environment = {name: relocate(value, moved) for name, value in environment.items()}
        command, args = (
            relocated([expand(word, environment) for word in spec.get(part) or []], moved)
            for part in ("command", "args")
        )
        words = kubelet.image.command(spec["image"], command, args)
        home = self._directory / spec["name"]
        kubelet.image.unpack(home)
        environment.setdefault("HOME", str(home))
        running = start(
            words, environment=environment, directory=home, mounts=real,
            log=self.log(spec["name"]),
        )  # fmt: skip
        if container.ended is not None:
            container.restarts += 1
        container.running, container.started_at = Running(running), now()
        container.is_ready = not container.is_init and "readinessProbe" not in spec

    def _wait(self, container: Container, reason: str, message: str) -> None:
        container.waiting = {"reason": reason, "message": message}
        container.start_at = time.monotonic() + BACK_OFF_SECONDS[0]

    def _notice_end(self, container: Container) -> None:
        if container.running is None or (code := container.running.exit_code()) is None:
            return
        container.running, container.is_ready = None, False
        container.ended = _terminated(code, container.started_at)
        first, longest = BACK_OFF_SECONDS
        container.start_at = time.monotonic() + min(longest, first * 2**container.restarts)

    def _probe(self, container: Container) -> None:
        """Ask the readiness probe, by HTTP or by command."""
        probe = container.spec.get("readinessProbe")
        if not probe or container.running is None or time.monotonic() < container.probe_at:
            return
        container.probe_at = time.monotonic() + float(probe.get("periodSeconds", 10))
        container.is_ready = _answers(probe, container.spec)
        if not container.is_ready:
            container.probe_at = time.monotonic() + 1.0

    # --- ending ----------------------------------------------------------------------------------

    def _end(self) -> None:
        metadata = self.pod["metadata"]
        grace = float(metadata.get("deletionGracePeriodSeconds") or 0)
        alive = [one.running for one in (*self._inits, *self._mains) if one.running is not None]
        for one in alive:
            one.end(grace_seconds=grace)
        if not alive:
            for container in self._mains:
                if container.ended is None:
                    container.waiting = {"reason": "ContainerCreating"}
        self._tell(is_over=not alive)
        if not alive and not self._is_gone:
            # A finalizer may hold it back; then it is only marked as to be removed at once.
            path = object_path(PODS, metadata["namespace"], metadata["name"])
            self._kubelet.api.delete(
                path, gracePeriodSeconds=0, preconditions={"uid": metadata["uid"]}
            )
            self._is_gone = True

    # --- telling ---------------------------------------------------------------------------------

    def _tell(self, *, is_over: bool = False) -> None:
        """Write the status when it changed."""
        phase = self.phase()
        if is_over and phase in ("Running", "Pending"):
            codes = [one.ended["exitCode"] for one in self._mains if one.ended]
            has_ended_well = len(codes) == len(self._mains) and not any(codes)
            phase = "Succeeded" if has_ended_well else "Failed"
        is_ready = phase == "Running" and all(one.is_ready for one in self._mains)
        is_ready = is_ready and not self.pod["metadata"].get("deletionTimestamp")
        status: Object = {
            "phase": phase, "startTime": self._started_at, "hostIP": ADDRESS, "podIP": ADDRESS,
            "podIPs": [{"ip": ADDRESS}],
            "containerStatuses": [one.status() for one in self._mains],
            "initContainerStatuses": [one.status() for one in self._inits],
        }  # fmt: skip
        told = json.dumps([status, is_ready], sort_keys=True)
        if told == self._told:
            return
        is_initialized = all(one.ended and not one.ended["exitCode"] for one in self._inits)
        status["conditions"] = _conditions(
            self.pod, Initialized=is_initialized, Ready=is_ready, ContainersReady=is_ready
        )
        metadata = self.pod["metadata"]
        path = object_path(PODS, metadata["namespace"], metadata["name"]) + "/status"
        with contextlib.suppress(ObjectAbsent, ObjectConflict):
            self._kubelet.api.merge(path, {"metadata": {"uid": self.uid}, "status": status})
        self._told = told


def _terminated(code: int, started_at: str) -> Object:
    return {
        "exitCode": code, "reason": "Completed" if code == 0 else "Error",
        "startedAt": started_at, "finishedAt": now(),
    }  # fmt: skip


def _conditions(pod: Object, **holds: bool) -> list[Object]:
    """The pod's conditions with these among them; a time changes only with its condition."""
    known = {one["type"]: one for one in (pod.get("status") or {}).get("conditions") or []}
    for kind, is_true in holds.items():
        status = "True" if is_true else "False"
        if (known.get(kind) or {}).get("status") != status:
            known[kind] = {"type": kind, "status": status, "lastTransitionTime": now()}
    return list(known.values())


def _answers(probe: Object, container: Object) -> bool:
    if command := (probe.get("exec") or {}).get("command"):
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=PROBE_SECONDS, cwd=ROOT
        )
        return done.returncode == 0
    asked = probe.get("httpGet") or probe.get("tcpSocket") or {}
    port = asked.get("port")
    for one in container.get("ports") or []:
        port = one["containerPort"] if one.get("name") == port else port
    connection = http.client.HTTPConnection(ADDRESS, int(port or 80), timeout=PROBE_SECONDS)
    try:
        if "httpGet" not in probe:
            connection.connect()
            return True
        headers = {one["name"]: one["value"] for one in asked.get("httpHeaders") or []}
        connection.request("GET", asked.get("path", "/"), headers=headers)
        return 200 <= connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class Kubelet:
    """One node, and all pods that the scheduler gives it."""

    def __init__(
        self, api: KubernetesApi, *, node: str, server: str, directory: Path, image: Image
    ) -> None:
        self.api = api
        self.server = server
        self.directory = directory
        self.image = image
        self.has_mounts = can_mount()
        self._node = node
        self._pods: dict[str, Pod] = {}
        self._lease_at = 0.0
        self._is_stopping = False

    def register(self, *, gpus: int) -> None:
        """Make the node, ready. Safe to repeat."""
        capacity = {"cpu": "32", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
        labels = {LABEL: "true", "kubernetes.io/hostname": self._node, "kubernetes.io/os": "linux"}
        if gpus:
            labels["nvidia.com/gpu.product"] = "SIMULATED"
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self._node,
                                                                 "labels": labels}}  # fmt: skip
        with contextlib.suppress(ObjectConflict):
            self.api.create("/api/v1/nodes", node)
        moment = now()
        condition = {
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "pods run as processes", "lastHeartbeatTime": moment,
            "lastTransitionTime": moment,
        }  # fmt: skip
        status = {
            "capacity": capacity, "allocatable": capacity, "conditions": [condition],
            "addresses": [{"type": "InternalIP", "address": ADDRESS}],
            "nodeInfo": {"kubeletVersion": "v1.37.2-processes"},
            "daemonEndpoints": {"kubeletEndpoint": {"Port": serve_logs(self.directory, self.log)}},
        }  # fmt: skip
        self.api.merge(f"/api/v1/nodes/{self._node}/status", {"status": status})
        self._renew_lease()

    def log(self, namespace: str, pod: str, container: str) -> Path | None:
        """Where a container's output is kept; of the newest pod of that name."""
        for one in reversed([*self._pods.values()]):
            metadata = one.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, pod):
                return one.log(container)
        return None

    def run(self) -> None:
        """Look after the pods until `stop`; then end them all."""
        try:
            while not self._is_stopping:
                try:
                    self._look()
                except ClusterError as error:
                    print(f"kubelet: {error}", flush=True)
                time.sleep(LOOK_SECONDS)
        finally:
            for pod in self._pods.values():
                pod.kill()
            with contextlib.suppress(ClusterError):  # what is left of its pods is then removed
                self.api.delete(f"/api/v1/nodes/{self._node}")

    def stop(self) -> None:
        """Let `run` return."""
        self._is_stopping = True

    def _look(self) -> None:
        if time.monotonic() >= self._lease_at:
            self._renew_lease()
        found = self.api.items(f"/{PODS}", fieldSelector=f"spec.nodeName={self._node}")
        pods = {str(one["metadata"]["uid"]): one for one in found}
        for uid in [*self._pods]:
            if uid not in pods:
                self._pods.pop(uid).kill()
        for uid, one in pods.items():
            is_over = (one.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if uid not in self._pods:
                if is_over and not one["metadata"].get("deletionTimestamp"):
                    continue
                self._pods[uid] = Pod(self, one)
            try:
                self._pods[uid].step(one)
            except ClusterError as error:
                print(f"kubelet: {one['metadata']['name']}: {error}", flush=True)

    def _renew_lease(self) -> None:
        """The heartbeat; without it the node's pods are evicted after 20 s."""
        lease = {
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self._node},
            "spec": {"holderIdentity": self._node, "leaseDurationSeconds": 40, "renewTime": now()},
        }  # fmt: skip
        path = object_path(LEASES, "kube-node-lease", self._node)
        try:
            self.api.apply(path, lease, manager="kubelet")
        except ObjectAbsent:
            return  # its namespace is being made
        self._lease_at = time.monotonic() + LEASE_SECONDS


@contextlib.contextmanager
def kubelet(
    kubeconfig: Path,
    directory: Path,
    *,
    node: str = "processes",
    gpus: int = 0,
    entrypoints: Mapping[str, Sequence[str]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A node whose pods are real processes, in a process of its own; all end with the block.

    `entrypoints`: the command of an image without one in the pod, by the first part of its
    reference. Logs: `directory`/kubelet.log and `directory`/pods/UID/CONTAINER.log.
    """
    directory.mkdir(parents=True, exist_ok=True)
    words = [
        sys.executable, "-m", "tests.cluster.kubelet", f"--kubeconfig={kubeconfig}",
        f"--node={node}", f"--gpus={gpus}", f"--directory={directory}",
        *(f"--entrypoint={json.dumps([name, *command])}"
          for name, command in (entrypoints or {}).items()),
    ]  # fmt: skip
    with (directory / "kubelet.log").open("wb") as stream:
        process = subprocess.Popen(
            words, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], **(environment or {})}, preexec_fn=with_parent_death,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def main() -> int:
    """Be a node until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--context", default="tests")
    parser.add_argument("--node", default="processes")
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=ROOT, help="stands in for every image")
    parser.add_argument(
        "--entrypoint", type=json.loads, action="append", default=[],
        help='["IMAGE", "WORD", …]: what an image without a command in the pod runs',
    )  # fmt: skip
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    config = json.loads(options.kubeconfig.read_text())
    api = KubernetesApi(options.context, config_file=str(options.kubeconfig))
    node = Kubelet(
        api, node=options.node, directory=options.directory.resolve(),
        server=config["clusters"][0]["cluster"]["server"],
        image=Image(options.root, {name: words for name, *words in options.entrypoint}),
    )  # fmt: skip

    def stop(number: int, frame: FrameType | None) -> None:
        node.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    node.register(gpus=options.gpus)
    node.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
