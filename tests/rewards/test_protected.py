"""Which files the judge sees: the policy's, with what is protected as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.protected import is_harness, restore

PROTECTED = {"config.py": "STEP = 1", "tests/test_a.py": "assert True"}
parts = st.sampled_from(["a", "config", "config.py", "tests", "test_a.py", ".", "..", "", "conftest.py", "x.pth"])
paths = st.lists(parts, min_size=1).map("/".join)


@given(st.dictionaries(paths, st.just("forged"), max_size=6))
def test_what_is_protected_is_always_as_it_was(files):
    try:
        judged = restore(files, PROTECTED)
    except ValueError:
        return
    assert {path: judged[path] for path in PROTECTED} == PROTECTED
    for path in judged.keys() - PROTECTED.keys():
        assert judged[path] == files[path] and not is_harness(path)
        assert not path.startswith(("config/", "tests/test_a/"))


def test_what_is_not_in_the_way_is_kept():
    files = {"core.py": "x", "tests/test_b.py": "y", "configs/a.py": "z", "docs/setup.txt": "", "config.py": "STEP = 9"}
    assert restore(files, PROTECTED) == {**files, **PROTECTED}


@pytest.mark.parametrize("path", ["/a.py", "../a.py", "a/../../b.py", "./a.py", "a//b.py", "a/", "", ".", "a/./b.py"])
def test_a_path_has_one_spelling(path):
    with pytest.raises(ValueError, match="shortest form"):
        restore({path: ""}, PROTECTED)


@pytest.mark.parametrize(
    "path",
    ["conftest.py", "tests/conftest.py", "pytest.ini", "a/sitecustomize.py", "x.pth", "lib/a.so", "__pycache__/a.py"],
)
def test_a_harness_file_of_the_policy_is_left_out_and_a_protected_one_stays(path):
    assert restore({path: "evil"}, {}) == {}
    assert restore({path: "evil"}, {path: "good"}) == {path: "good"}
