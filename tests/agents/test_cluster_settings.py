"""`CLUSTER_URL` chooses the cluster, and says what it accepts when it cannot."""

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from agents.cluster import get_cluster
from agents.cluster.local import LocalCluster
from agents.cluster.memory import MemoryCluster


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
