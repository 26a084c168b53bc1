"""Real cards through the real NVML binding, against a small library compiled here in its place."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NVML_CODES = {"ok": 0, "not_supported": 3, "driver_not_loaded": 9, "gpu_is_lost": 15}
# The seven functions the adapter asks for, with the signatures of NVIDIA's nvml.h.
SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } rates_t;
static int code(const char *name) { const char *v = getenv(name); return v ? atoi(v) : 0; }
int nvmlInitWithFlags(unsigned int flags) { return code("STUB_INIT"); }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return code("STUB_COUNT"); }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
  *device = (void *)(unsigned long)(index + 1); return 0;
}
static unsigned long card(void *device) { return (unsigned long)device - 1; }
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
  snprintf(uuid, length, "GPU-00000000-0000-0000-0000-00000000000%lu", card(device)); return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
  snprintf(name, length, "Stub %lu", card(device)); return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, memory_t *memory) {
  memory->total = 80ULL << 30; memory->used = card(device) << 30;
  memory->free = memory->total - memory->used; return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, rates_t *rates) {
  rates->gpu = 37; rates->memory = 5; return card(device) ? code("STUB_RATES") : 0;
}
const char *nvmlErrorString(int result) { return "stub error"; }
"""
ASK = """
import json, sys, time
from dataclasses import asdict
from pathlib import Path
from agents.cluster.base import ClusterError
from agents.cluster.local import LocalCluster
from tests.agents.cluster_workloads import finished, lines, python_spec
cluster = LocalCluster(Path(sys.argv[1]), declared_gpus=4)
try:
    gpus = [asdict(gpu) for gpu in cluster.gpus()]
except ClusterError as error:
    print(json.dumps({"error": str(error)})); sys.exit()
seen = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
for name, count in (("both", 2), ("none", 0)):
    cluster.create(python_spec(name, seen, gpus=count))
    finished(cluster, name)
print(json.dumps({"gpus": gpus, "both": lines(cluster, "both"), "none": lines(cluster, "none")}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc: a stand-in for libnvidia-ml.so.1 is compiled")
    directory = tmp_path_factory.mktemp("nvml")
    (directory / "stub.c").write_text(SOURCE)
    command = [compiler, "-shared", "-fPIC", "-o", "libnvidia-ml.so.1", "stub.c"]
    subprocess.run(command, cwd=directory, check=True, timeout=60)
    return directory


def _ask(directory: Path, library: Path | None, **errors: int) -> dict[str, object]:
    environment = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    environment |= {name: str(code) for name, code in errors.items()}
    if library is not None:
        environment["LD_LIBRARY_PATH"] = str(library)
    command = [sys.executable, "-c", ASK, str(directory / "cluster")]
    answer = subprocess.run(
        command, env=environment, cwd=ROOT, check=True, capture_output=True, timeout=60
    )
    return json.loads(answer.stdout)


def test_real_cards_are_measured(tmp_path: Path, library: Path) -> None:
    answer = _ask(tmp_path, library)
    uuids = [f"GPU-00000000-0000-0000-0000-00000000000{index}" for index in range(2)]
    assert answer["gpus"] == [
        {
            "id": uuids[index],
            "node": "local",
            "name": f"Stub {index}",
            "is_measured": True,
            "held_by": "",
            "memory_total_bytes": 80 << 30,
            "memory_used_bytes": index << 30,
            "utilisation": 0.37,
        }
        for index in range(2)
    ]
    assert answer["both"] == [",".join(uuids)]
    assert answer["none"] == [""]  # no card for who asked for none


def test_a_figure_a_card_does_not_tell_is_unknown(tmp_path: Path, library: Path) -> None:
    answer = _ask(tmp_path, library, STUB_RATES=NVML_CODES["not_supported"])
    assert [gpu["utilisation"] for gpu in answer["gpus"]] == [0.37, None]


def test_no_driver_means_declared_slots(tmp_path: Path, library: Path) -> None:
    answer = _ask(tmp_path, library, STUB_INIT=NVML_CODES["driver_not_loaded"])
    assert [(gpu["id"], gpu["is_measured"]) for gpu in answer["gpus"]] == [
        (f"gpu-{index}", False) for index in range(4)
    ]
    assert answer["none"] == ["None"]


def test_a_lost_card_is_an_error_and_not_an_empty_machine(tmp_path: Path, library: Path) -> None:
    answer = _ask(tmp_path, library, STUB_COUNT=NVML_CODES["gpu_is_lost"])
    assert "NVML could not list the GPUs" in answer["error"]
