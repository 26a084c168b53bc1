"""Quantities, GPU counts and the shapes policies are written for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.policy.normalise import (
    MAX_LIST_ITEMS,
    UnreadableInput,
    derived_objects,
    graph_input,
    parse_quantity,
    workload_documents,
    workload_input,
)


def pod(resources: object, **spec: object) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": "c", "resources": resources}], **spec},
    }


def judged(resources: object) -> dict:
    return workload_input(pod(resources))["spec"]["containers"][0]["resources"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3),
        ("500m", 0.5),
        ("1Gi", 1 << 30),
        ("1.5Gi", 1610612736),
        ("2k", 2000),
        ("1e3", 1000),
        ("12E", 12 * 10**18),
        ("100n", 1e-07),
        (".5", 0.5),
        (4, 4),
        (0.25, 0.25),
    ],
)
def test_quantities(text, number):
    assert parse_quantity(text, field="f") == number


@pytest.mark.parametrize(
    "text", ["", "two", "1 GiB", "1gi", "0x10", "1e9999", None, True, [], "NaN"]
)
def test_bad_quantities_name_the_field(text):
    with pytest.raises(UnreadableInput, match=r"spec\.cpu: .* is not a quantity"):
        parse_quantity(text, field="spec.cpu")


@given(st.integers(min_value=0, max_value=10**15), st.sampled_from(["", "k", "M", "Ki", "Mi"]))
def test_whole_quantities_stay_whole(number, suffix):
    assert isinstance(parse_quantity(f"{number}{suffix}", field="f"), int)


@pytest.mark.parametrize(
    ("limits", "gpu"),
    [
        ({"nvidia.com/gpu": "3"}, 3),
        ({"nvidia.com/gpu": "1", "amd.com/gpu": 2}, 3),
        ({"nvidia.com/mig-1g.5gb": "4"}, 4),
        ({"gpu": "3"}, 3),
        ({"gpu": 3, "nvidia.com/gpu": 3}, 3),
        ({"nvidia.com/gpu": "0"}, 0),
    ],
)
def test_gpus_are_counted_as_a_number(limits, gpu):
    changed = judged({"limits": limits})["limits"]
    assert changed["gpu"] == gpu
    assert not any(isinstance(value, str) for value in changed.values())


def test_requested_gpus_count_when_limits_are_missing_or_lower():
    assert judged({"requests": {"nvidia.com/gpu": "3"}})["limits"]["gpu"] == 3
    both = {"limits": {"nvidia.com/gpu": 1}, "requests": {"nvidia.com/gpu": 5}}
    assert judged(both)["limits"]["gpu"] == 5


def test_no_gpu_is_not_zero_gpus():
    assert "gpu" not in judged({"limits": {"cpu": "1"}})["limits"]


def test_cpu_and_memory_stay_as_written_and_come_as_numbers_beside():
    changed = judged({"limits": {"cpu": "500m"}, "requests": {"memory": "1Gi"}})
    assert changed["limits"] == {"cpu": "500m"}
    assert changed["limits_normalised"] == {"cpu": 0.5}
    assert changed["requests_normalised"] == {"memory": 1 << 30}


def test_init_containers_are_normalised():
    document = workload_input(
        pod({}, initContainers=[{"name": "i", "resources": {"limits": {"nvidia.com/gpu": "2"}}}])
    )
    assert document["spec"]["initContainers"][0]["resources"]["limits"]["gpu"] == 2


def test_request_and_review_carry_the_same_object():
    document = workload_input(pod({"limits": {"nvidia.com/gpu": "2"}}))
    assert document["request"]["object"]["spec"] == document["spec"]
    assert document["review"]["object"]["spec"] == document["spec"]
    assert document["request"]["kind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert document["request"]["namespace"] == "n"


def test_input_is_not_changed():
    given_pod = pod({"limits": {"nvidia.com/gpu": "2"}})
    workload_input(given_pod)
    assert given_pod == pod({"limits": {"nvidia.com/gpu": "2"}})


def test_deletion_is_judged_by_the_old_object():
    request = {"operation": "DELETE", "object": None, "oldObject": pod({})}
    document = workload_input({"kind": "AdmissionReview", "request": request})
    assert document["kind"] == "Pod"
    assert document["request"]["operation"] == "DELETE"


def test_cron_job_holds_a_pod_with_its_name():
    template = {"spec": pod({})["spec"]}
    cron = {"kind": "CronJob", "metadata": {"name": "c", "namespace": "n"}}
    cron["spec"] = {"jobTemplate": {"spec": {"template": template}}}
    (found,) = derived_objects(cron)
    assert found["kind"] == "Pod"
    assert found["metadata"] == {"name": "c", "namespace": "n"}


def test_documents_of_a_list_of_jobs():
    job = {"kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": {}}}}
    documents = workload_documents({"kind": "List", "items": [job]}, parameters={"a": 1})
    assert [document["kind"] for document in documents] == ["List", "Job", "Pod"]
    assert [document["request"]["kind"]["kind"] for document in documents] == ["List", "Job", "Pod"]
    assert [document["parameters"] for document in documents] == [{"a": 1}] * 3


def test_list_too_long_to_judge_is_refused():
    with pytest.raises(UnreadableInput, match="at most"):
        list(derived_objects({"kind": "List", "items": [{}] * (MAX_LIST_ITEMS + 1)}))


@pytest.mark.parametrize("resources", [[], "x", {"limits": "x"}, {"limits": ["gpu"]}])
def test_odd_resources_are_refused_or_left(resources):
    if isinstance(resources, dict):
        with pytest.raises(UnreadableInput, match=r"resources\.limits: must be a mapping"):
            workload_input(pod(resources))
    else:
        assert judged(resources) == resources


def test_graph_gpus_become_numbers_and_bad_ones_name_the_task():
    assert graph_input({"tasks": [{"gpus": "3"}, {"gpus": 1}, {}]})["tasks"][0] == {"gpus": 3}
    with pytest.raises(UnreadableInput, match=r"tasks\[1\]\.gpus"):
        graph_input({"tasks": [{"gpus": 1}, {"gpus": "many"}]})
