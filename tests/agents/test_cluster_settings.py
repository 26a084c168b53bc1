"""`CLUSTER_URL` chooses the cluster, and says what it accepts when it cannot."""

from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from agents.cluster import get_cluster
from agents.cluster.base import WorkloadSpec
from agents.cluster.local import LocalCluster
from agents.cluster.memory import MemoryCluster
from goals.services.planning import pod_template


def test_the_local_cluster_keeps_its_state_in_the_data_directory(tmp_path: Path) -> None:
    with override_settings(CLUSTER_URL="local:?gpus=3&hold=1", CLEARANCE_DATA=tmp_path):
        cluster = get_cluster()
        assert get_cluster() is cluster
    assert isinstance(cluster, LocalCluster)
    assert cluster.directory == tmp_path / "cluster"
    assert cluster.control_plane_lock == tmp_path / "run" / "tower.lock"
    assert (cluster.declared_gpus, cluster.hold_gpus_on_pause) == (3, True)
    assert list(tmp_path.iterdir()) == []  # a constructor opens nothing


def test_the_twin_by_url(tmp_path: Path) -> None:
    with override_settings(CLUSTER_URL="memory:?gpus=2", CLEARANCE_DATA=tmp_path):
        cluster = get_cluster()
    assert isinstance(cluster, MemoryCluster)
    assert len(cluster.gpus()) == 2


def test_a_context_of_kubernetes_by_url(tmp_path: Path) -> None:
    from agents.cluster.kubernetes.cluster import KubernetesCluster

    with override_settings(CLUSTER_URL="kubernetes:prod/eu:1", CLEARANCE_DATA=tmp_path):
        assert isinstance(get_cluster(), KubernetesCluster)


def test_what_operators_say_of_all_attempts_holds_for_jobs(tmp_path: Path) -> None:
    from agents.cluster.kubernetes.cluster import KubernetesCluster
    from agents.cluster.kubernetes.objects import KEEP_LEAST_SECONDS, job
    from agents.cluster.kubernetes.record import new_record

    def made(namespace: str, **settings: object) -> tuple[object, object, object]:
        spec = WorkloadSpec(
            name="a", namespace=namespace, goal_uid="g", task="t", attempt_uid="a", agent="a",
            service_account="a", image="x/y:1", command=("a",),
        )  # fmt: skip
        with override_settings(CLUSTER_URL="kubernetes:prod", CLEARANCE_DATA=tmp_path, **settings):
            cluster = get_cluster()
        assert isinstance(cluster, KubernetesCluster)
        body = job(spec, new_record(spec), terms=cluster.terms)["spec"]
        pod = body["template"]["spec"]
        (container,) = pod["containers"]
        return (
            body["ttlSecondsAfterFinished"],
            pod["securityContext"].get("runAsNonRoot"),
            container["securityContext"].get("capabilities"),
        )

    def judged(namespace: str) -> Any:
        node = {
            "name": "t", "gpus": 0, "memoryBytes": None,
            "agent": {"name": "a", "role": "r", "serviceAccount": "s", "image": "i", "command": [],
                      "labels": {}},
        }  # fmt: skip
        with override_settings(CLUSTER_URL="kubernetes:prod", WORKLOAD_ROOT_NAMESPACES=["lab"]):
            spec = pod_template(node, namespace=namespace, goal="g", goal_uid="u").document()[
                "spec"
            ]
        (container,) = spec["containers"]
        return spec["securityContext"].get("runAsNonRoot"), container["securityContext"].get(
            "capabilities"
        )

    rooted = {"WORKLOAD_ROOT_NAMESPACES": ["lab"], "WORKLOAD_RETENTION_SECONDS": 7200}
    assert made("shop") == (86_400, True, {"drop": ["ALL"]})
    assert made("shop", **rooted) == (7200, True, {"drop": ["ALL"]})
    assert made("lab", **rooted) == (7200, None, None)
    # Policy sees the same before anything runs.
    assert (judged("shop"), judged("lab")) == ((True, {"drop": ["ALL"]}), (None, None))
    # Whoever reads ended Jobs may be down for a while.
    assert made("shop", WORKLOAD_RETENTION_SECONDS=0)[0] == KEEP_LEAST_SECONDS


@pytest.mark.parametrize(
    "url",
    [
        "",
        "kubernetes",
        "local",
        "local://host",
        "local:?gpus=-1",
        "local:?gpus=many",
        "local:?gpus=99999",
        "local:?gpus=1&gpus=2",
        "local:?hold=2",
        "local:?gpu=4",
        "local:?gpus",
    ],
)
def test_an_unusable_url_names_the_accepted_forms(url: str, tmp_path: Path) -> None:
    with (
        override_settings(CLUSTER_URL=url, CLEARANCE_DATA=tmp_path),
        pytest.raises(ImproperlyConfigured, match=r"CLUSTER_URL=.*Use local:\?gpus=N"),
    ):
        get_cluster()
