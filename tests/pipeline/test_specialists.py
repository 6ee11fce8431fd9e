"""Which specialists are trained, for how long, and in which order."""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import load_config
from pipeline.stages import StageContext, specialists
from pipeline.stages.common import specialist_rl
from pipeline.stages.specialists import specialist_modes, specialist_name


def test_a_domain_may_train_longer_than_the_others():
    config, _ = load_config("smoke", [], ["domains.math.specialist_steps=9"])
    assert specialist_rl(config, "math") == replace(config.specialists.rl, steps=9)
    assert specialist_rl(config, "writing") is config.specialists.rl


def test_modes_are_trained_together_or_apart():
    assert [specialist_name("math", modes) for modes in specialist_modes("joint")] == ["math"]
    apart = [specialist_name("math", modes) for modes in specialist_modes("separate")]
    assert apart == ["math-thinking", "math-direct"]


def test_the_longest_runs_begin_first(monkeypatch, tmp_path):
    """Judged answers cost more than graded ones, several turns more than one, many steps more than few."""
    begun = []
    monkeypatch.setattr(specialists, "_train", lambda context, domain, *rest: begun.append(domain))
    monkeypatch.setattr(specialists, "artifact", lambda *rest: None)
    monkeypatch.setattr(specialists, "start_grader", lambda *rest: _Nothing())
    config, _ = load_config("tiny", [], ["domains.code.specialist_steps=1", "specialists.rl.steps=30"])
    context = StageContext(config, tmp_path, {}, None, None, _Nothing())
    result = specialists.run(context)
    assert set(begun[:3]) == {"agentic_code", "agentic_search", "writing"}
    assert begun[-1] == "code"
    assert list(result.artifacts) == list(config.domains)
    assert result.counts["steps"] == sum(specialist_rl(config, name).steps for name in config.domains)


class _Nothing:
    """A runtime in one process, and a grader that is never asked."""

    parallel = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None
