import pytest

from rewards.custom import CustomReward, CustomRewardError

MODULE = """
import math
def brevity(prompts, completions, completion_ids=None, **columns):
    return [len(c[0]["content"]) / 10 for c in completions]
def named(completions, answer):
    return [float(c[0]["content"] == a) for c, a in zip(completions, answer)]
def odd(prompts, completions, **columns):
    return [None, math.nan, math.inf, "x", 1]
def broken(prompts, completions, **columns):
    raise KeyError("answer")
def short(prompts, completions, **columns):
    return [1.0]
def scalar(prompts, completions, **columns):
    return 1.0
value = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_rewards_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def score(name, count=2, **columns):
    conversations = [[{"role": "assistant", "content": "x" * (i + 1)}] for i in range(count)]
    prompts = [[{"role": "user", "content": "q"}]] * count
    return CustomReward(f"my_rewards_module:{name}").score(prompts, conversations, **columns)


def test_trl_signature(here):
    assert [reward.value for reward in score("brevity", answer=["a", "b"])] == [0.1, 0.2]
    assert CustomReward("my_rewards_module.brevity").path == "my_rewards_module.brevity"
    assert [reward.value for reward in score("named", answer=["x", "y"])] == [1.0, 0.0]


def test_what_is_no_number_is_invalid(here):
    rewards = score("odd", count=5)
    assert [reward.valid for reward in rewards] == [False, False, False, False, True]
    assert "finite" in rewards[1].invalid_reason


def test_an_exception_is_invalid_with_its_text(here):
    assert [r.invalid_reason for r in score("broken")] == [
        "custom reward my_rewards_module:broken: KeyError: 'answer'"
    ] * 2


def test_a_wrong_shape_is_an_error(here):
    with pytest.raises(CustomRewardError, match=r"one entry per completion \(2\), got 1"):
        score("short")
    with pytest.raises(CustomRewardError, match="got float"):
        score("scalar")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "is named"),
        ("no_such_module_here:f", "cannot import"),
        ("my_rewards_module:nope", "no function"),
        ("my_rewards_module:value", "no function"),
    ],
)
def test_a_path_that_leads_nowhere(here, path, message):
    with pytest.raises(CustomRewardError, match=message):
        CustomReward(path)
