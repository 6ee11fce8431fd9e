"""What comes back from a child or over the network is data: anything else than the expected shape is told as such."""

import json
from dataclasses import asdict

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rewards.sandbox import Call, Job, JobResult
from rewards.sandbox.records import parse_results

FIXED = settings(derandomize=True, max_examples=300, deadline=None)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*Job.program("").record(), *asdict(JobResult("ok"))])
GOOD_JOB = Job.in_files({"a": "b"}, [Call("f", [1], "m")]).record()


@FIXED
@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_result_of_a_child_is_read_or_refused(data):
    results = parse_results(data)
    assert results is None or all(result.ok in (True, False) for result in results)


def test_results_that_attack_the_reader():
    deep, long = b"[" * 10**6, b'[{"value": ' + b"9" * 10**5 + b"}]"
    for data in (deep, long, b'[{"value": NaN}]', b"\xff" * 100, b"[1]", b"{}", b""):
        assert parse_results(data) is None
    assert parse_results(b'[{"value": 1, "value": 2}, {"error": 3}, {}]')[1].error == "3"


@FIXED
@given(VALUES | st.tuples(FIELDS, VALUES).map(lambda one: {**GOOD_JOB, one[0]: one[1]}))
@example({**GOOD_JOB, "args": [float("inf")]})
def test_any_record_is_a_job_or_a_value_error(record):
    try:
        job = Job.from_record(record)
    except ValueError:
        return
    assert Job.from_record(json.loads(job.payload())).payload() == job.payload()


@FIXED
@given(VALUES | st.tuples(FIELDS, VALUES).map(lambda one: {**asdict(JobResult("ok")), one[0]: one[1]}))
def test_any_record_is_a_result_or_a_value_error(record):
    try:
        result = JobResult.from_record(record)
    except ValueError:
        return
    assert isinstance(result.stdout, str) and isinstance(result.error, str)
