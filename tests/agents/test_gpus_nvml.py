"""Real cards through the real NVML binding, against a small library compiled here in its place."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.agents.nvml_library import CODES, card_uuid, compile_library, slice_uuid

ROOT = Path(__file__).parents[2]
GIB = 1 << 30
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
# Looks once for each line of its input; between two lines the test changes what the cards say.
LOOK = """
import json, sys
from dataclasses import asdict
from agents.cluster.base import ClusterUnavailable
from agents.cluster.nvml import NvmlNode
node = NvmlNode()
for _ in sys.stdin:
    try:
        print(json.dumps(asdict(node.read())), flush=True)
    except ClusterUnavailable as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
node.close()
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("nvml"))


def _environment(library: Path | None, state: Path) -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    if library is not None:
        environment |= {"LD_LIBRARY_PATH": str(library), "STUB_STATE": str(state)}
    return environment


def _ask(directory: Path, library: Path | None, state: str = "") -> dict[str, Any]:
    (directory / "state").write_text(state)
    command = [sys.executable, "-c", ASK, str(directory / "cluster")]
    answer = subprocess.run(
        command,
        env=_environment(library, directory / "state"),
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    return json.loads(answer.stdout)


def _looks(directory: Path, library: Path | None, *states: str) -> list[dict[str, Any]]:
    """What one process reads, the cards saying `states` one after the other."""
    state = directory / "state"
    state.write_text(states[0])
    with subprocess.Popen(
        [sys.executable, "-c", LOOK],
        env=_environment(library, state),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        found = []
        for text in states:
            state.write_text(text)
            process.stdin.write("\n")
            process.stdin.flush()
            found.append(json.loads(process.stdout.readline()))
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    return found


def _fail(function: str, word: str) -> str:
    return f"fail.{function} {CODES[word]}\n"


def _only(reading: dict[str, Any], identity: str) -> dict[str, Any]:
    (found,) = [device for device in reading["devices"] if device["id"] == identity]
    return found


# --- what workloads are given --------------------------------------------------------------------


def test_real_cards_are_measured(tmp_path: Path, library: Path) -> None:
    answer = _ask(tmp_path, library)
    assert answer["gpus"] == [
        {
            "id": card_uuid(index),
            "node": "local",
            "name": f"Stub {index}",
            "is_measured": True,
            "held_by": "",
            "memory_total_bytes": 80 * GIB,
            "memory_used_bytes": index * GIB,
            "utilisation": 0.37,
        }
        for index in range(2)
    ]
    assert answer["both"] == [",".join(card_uuid(index) for index in range(2))]
    assert answer["none"] == [""]  # no card for who asked for none


def test_a_figure_a_card_does_not_tell_is_unknown(tmp_path: Path, library: Path) -> None:
    answer = _ask(tmp_path, library, f"fail.utilisation.1 {CODES['not_supported']}\n")
    assert [gpu["utilisation"] for gpu in answer["gpus"]] == [0.37, None]


def test_of_a_card_in_mig_mode_its_slices_are_given(tmp_path: Path, library: Path) -> None:
    answer = _ask(tmp_path, library, "mig.1 1\nslice.1.0 1\nslice.1.2 1\n")
    assert [(gpu["id"], gpu["memory_total_bytes"] // GIB) for gpu in answer["gpus"]] == [
        (card_uuid(0), 80), (slice_uuid(1, 0), 10), (slice_uuid(1, 2), 10),
    ]  # fmt: skip
    assert answer["both"] == [f"{card_uuid(0)},{slice_uuid(1, 0)}"]


def test_no_driver_means_declared_slots(tmp_path: Path, library: Path) -> None:
    answer = _ask(tmp_path, library, _fail("init", "driver_not_loaded"))
    assert [(gpu["id"], gpu["is_measured"]) for gpu in answer["gpus"]] == [
        (f"gpu-{index}", False) for index in range(4)
    ]
    assert answer["none"] == ["None"]


def test_a_lost_card_is_an_error_and_not_an_empty_machine(tmp_path: Path, library: Path) -> None:
    answer = _ask(tmp_path, library, _fail("count", "gpu_is_lost"))
    assert "NVML could not list the GPUs" in answer["error"]


# --- what a node looks at again and again --------------------------------------------------------


NOBODY = 2**22 + 1  # above any process id that Linux gives


def test_a_look_tells_all_a_card_knows(tmp_path: Path, library: Path) -> None:
    state = f"reasons.0 96\ncorrected.0 4\nuncorrected.0 1\npid.0 {NOBODY}\ntemperature.0 91\n"
    (reading,) = _looks(tmp_path, library, state)
    assert reading["driver_version"] == "575.57.08"
    card = _only(reading, card_uuid(0))
    assert card == {
        "id": card_uuid(0), "kind": "card", "name": "Stub 0", "position": 0, "parent": "",
        "profile": "", "memory_total_bytes": 80 * GIB, "memory_used_bytes": 0,
        "utilisation": 0.37, "temperature_c": 91, "temperature_limit_c": 90,
        "power_mw": 310_000, "power_limit_mw": 700_000,
        "throttles": ["hw-thermal", "sw-thermal"], "is_ecc_on": True, "ecc_corrected": 4,
        "ecc_uncorrected": 1, "is_mig_on": False, "hears_xids": True, "xids": [], "trouble": "",
        "processes": [
            {"pid": NOBODY, "memory_bytes": 3 * GIB, "owner": "unknown", "workload": "",
             "program": "", "pod_uid": ""}
        ],
    }  # fmt: skip
    assert _only(reading, card_uuid(1))["processes"] == []


def test_each_error_is_told_once_and_to_its_card(tmp_path: Path, library: Path) -> None:
    first = "xid 1 79\nxid 1 63\nxid 0 31\n"
    looks = _looks(tmp_path, library, "", first, first, first + "xid 0 48\n")
    assert [_only(look, card_uuid(0))["xids"] for look in looks] == [[], [31], [], [48]]
    assert [_only(look, card_uuid(1))["xids"] for look in looks] == [[], [79, 63], [], []]


def test_slices_follow_their_card(tmp_path: Path, library: Path) -> None:
    state = "mig.0 1\nslice.0.0 1\nslice.0.3 1\nmemory.0.3 2\npid.0.3 99\n"
    (reading,) = _looks(tmp_path, library, state)
    assert [device["id"] for device in reading["devices"]] == [
        card_uuid(0), slice_uuid(0, 0), slice_uuid(0, 3), card_uuid(1),
    ]  # fmt: skip
    found = _only(reading, slice_uuid(0, 3))
    assert (found["kind"], found["parent"], found["profile"]) == ("slice", card_uuid(0), "1g.10gb")
    assert (found["memory_used_bytes"], found["utilisation"]) == (2 * GIB, None)
    assert [process["pid"] for process in found["processes"]] == [99]
    assert _only(reading, slice_uuid(0, 0))["processes"] == []
    assert _only(reading, card_uuid(0))["is_mig_on"] is True


@pytest.mark.parametrize("word", ["not_supported", "unknown"])
def test_what_a_card_does_not_tell_is_none(tmp_path: Path, library: Path, word: str) -> None:
    functions = ("utilisation", "temperature", "power", "reasons", "ecc", "mig", "processes")
    refused = "".join(_fail(function, word) for function in (*functions, "register"))
    (reading,) = _looks(tmp_path, library, refused)
    card = _only(reading, card_uuid(0))
    names = ("utilisation", "temperature_c", "power_mw", "throttles", "is_ecc_on",
             "ecc_corrected", "ecc_uncorrected", "is_mig_on", "processes")  # fmt: skip
    assert {name: card[name] for name in names} == dict.fromkeys(names)
    assert (card["hears_xids"], card["trouble"]) == (False, "")


@pytest.mark.parametrize("function", ["handle", "memory"])
def test_a_lost_card_is_said_and_the_other_goes_on(
    tmp_path: Path, library: Path, function: str
) -> None:
    lost = f"fail.{function}.1 {CODES['gpu_is_lost']}\n"
    looks = _looks(tmp_path, library, "", lost, "")
    troubles = [_only(look, card_uuid(1))["trouble"] for look in looks]
    assert troubles[0] == troubles[2] == ""
    assert "does not answer" in troubles[1]
    assert all(_only(look, card_uuid(0))["utilisation"] == 0.37 for look in looks)


def test_a_driver_that_restarts_is_read_again(tmp_path: Path, library: Path) -> None:
    over = _fail("count", "uninitialized")
    looks = _looks(tmp_path, library, "", over, _fail("init", "driver_not_loaded"), "")
    assert looks[1]["error"].startswith("ClusterUnavailable: NVML does not answer")
    assert looks[2]["devices"] == []
    assert [device["id"] for device in looks[3]["devices"]] == [card_uuid(0), card_uuid(1)]


def test_a_replaced_driver_needs_a_new_process(tmp_path: Path, library: Path) -> None:
    (look,) = _looks(tmp_path, library, _fail("init", "version_mismatch"))
    assert look["error"].startswith("DriverReplaced")


def test_a_card_that_nobody_ever_saw_is_a_note(tmp_path: Path, library: Path) -> None:
    (look,) = _looks(tmp_path, library, f"fail.uuid.1 {CODES['gpu_is_lost']}\n")
    assert [device["id"] for device in look["devices"]] == [card_uuid(0)]
    assert look["notes"] == ["GPU 1 does not answer: GPU is lost."]


def _devices(looks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [device for look in looks for device in look["devices"]]


def test_cards_of_this_machine_are_read(tmp_path: Path) -> None:
    looks = _looks(tmp_path, None, "", "")
    if not _devices(looks):
        pytest.skip("needs an NVIDIA GPU: this machine has none")
    for device in _devices(looks):
        assert device["id"].startswith(("GPU-", "MIG-"))
        assert device["trouble"] == ""
        assert 0 < device["memory_used_bytes"] <= device["memory_total_bytes"]
        if device["kind"] == "card":
            assert 0 < device["temperature_c"] < 120
            assert 0 < device["power_mw"] < 2_000_000
