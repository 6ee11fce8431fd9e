"""Settings: what is merged, what is refused, and how it is told."""

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from pipeline.config import Config, ConfigError, load_config, presets
from pipeline.config.explain import explain, to_yaml
from pipeline.config.keys import Key, key_table
from pipeline.config.validate import RANGES, range_of
from pipeline.errors import UsageError


def problems_of(*overrides: str, files: tuple[Path, ...] = (), preset: str | None = "tiny") -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_config(preset, files, overrides)
    return {problem.key: str(problem) for problem in caught.value.problems}


@pytest.mark.parametrize("preset", presets())
def test_every_preset_is_valid(preset):
    config, _ = load_config(preset)
    assert isinstance(config, Config)
    assert config.domains


def test_the_papers_schedule():
    """DeepSeek-V3.2 (arXiv:2512.02556), section 2.1.1: steps, learning rates, tokens of a step, and k."""
    config, _ = load_config("dsa-paper")
    sparsify, length = config.sparsify, 128 * 1024
    assert (sparsify.warmup_steps, sparsify.warmup.lr) == (1000, 1e-3)
    assert (sparsify.sparse_steps, sparsify.sparse.lr, sparsify.indexer_lr) == (15000, 7.3e-6, 7.3e-6)
    assert sparsify.context_length == length
    assert sparsify.batch_tokens * sparsify.warmup_accumulation == 16 * length
    assert sparsify.batch_tokens * sparsify.sparse_accumulation == 480 * length
    assert (config.model.index_topk, config.model.index_n_heads, config.model.index_head_dim) == (2048, 64, 128)


def test_later_layers_win_and_their_origin_is_kept(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("base:\n  steps: 11\n  documents: 12\n")
    second.write_text("base: {steps: 13}\n")
    config, origins = load_config("tiny", [first, second], ["seed=5"])
    assert (config.base.steps, config.base.documents, config.seed) == (13, 12, 5)
    assert origins.of("base.steps").where == f"{second}:1"
    assert origins.of("base.documents").where == f"{first}:3"
    assert str(origins.of("seed")) == "override seed=5"
    assert origins.of("grpo.clip_low").kind == "default"
    assert origins.of("domains.math.languages").where.startswith("configs/tiny.yaml:")


def test_types_are_those_of_the_schema():
    config, _ = load_config(
        "tiny", [], ["grpo.optimizer.lr=1", "grpo.optimizer.betas=[0,0.5]", "base.steps=7"]
    )
    assert isinstance(config.grpo.optimizer.lr, float)
    assert config.grpo.optimizer.betas == [0.0, 0.5]
    assert load_config("tiny", [], ["grpo.optimizer.lr=1e-5"])[0].grpo.optimizer.lr == 1e-5


def test_all_mistakes_of_all_layers_are_told_at_once(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("grpo:\n  stepz: 3\n  steps: many\nbase: 3\ndomains:\n  maths: {share: 1}\n")
    found = problems_of(
        "grpo.optimizer.lr=-1", "device=cud", "lr=3", "seed=1.5", "judge.votes=2", files=(file,)
    )
    assert "Did you mean grpo.steps?" in found["grpo.stepz"]
    assert f"{file}:2" in found["grpo.stepz"]
    assert "expected an integer, got 'many'" in found["grpo.steps"]
    assert "it is a section" in found["base"]
    assert "Did you mean domains.math?" in found["domains.maths"]
    assert "greater than 0" in found["grpo.optimizer.lr"]
    assert "Did you mean cuda?" in found["device"]
    assert "optimizer.lr" in found["lr"]
    assert "expected an integer" in found["seed"]
    assert "odd" in found["judge.votes"]
    assert len(found) == 9


@pytest.mark.parametrize(
    ("override", "key", "says"),
    [
        ("domains.math.group_size=1", "domains.math.group_size", "2 or more"),
        ("base.careful_share=1.5", "base.careful_share", "between 0 and 1"),
        ("rewards.length.penalty=0.3", "rewards.length.penalty", "between 0 and 0.2"),
        ("rewards.length.overlong_penalty=0.3", "rewards.length.overlong_penalty", "between 0 and 0.2"),
        ("rewards.language.penalty=1", "rewards.language.penalty", "a right answer always beats a wrong one"),
        ("rewards.length.overlong_share=0", "rewards.length.overlong_share", "above 0"),
        ("grpo.advantage_normalization=components", "grpo.advantage_normalization", "reward, component"),
        ("grpo.advantage_normalization=component", "grpo.advantage_normalization", "grpo.scale_by_std must be true"),
        ("base.optimizer.lr=.inf", "base.optimizer.lr", "finite"),
        ("base.optimizer.lr=.nan", "base.optimizer.lr", "finite"),
        ("base.optimizer.betas=[0.9]", "base.optimizer.betas", "two numbers"),
        ("sandbox.min_tier=docker", "sandbox.min_tier", "landlock, bubblewrap"),
        ("sampling.max_new_tokens=384", "sampling.max_new_tokens", "below sampling.max_context"),
        ("sampling.max_context=5000", "sampling.max_context", "model.max_position_embeddings"),
        ("model.qk_rope_head_dim=15", "model.qk_rope_head_dim", "even"),
        ("model.qk_rope_head_dim=64", "model.qk_rope_head_dim", "model.index_head_dim"),
        ("evaluate.checkpoints=[last]", "evaluate.checkpoints", "distilled"),
        ("judge.base_url=localhost", "judge.base_url", "http://"),
        ("domains.math.languages=[english]", "domains.math.languages", "ISO 639-1"),
        ("domains.math.data={}", "domains.math.data.train", "must name"),
        ("domains.math.enabled=maybe", "domains.math.enabled", "true or false"),
        ("model.dtype=true", "model.dtype", "expected text"),
        ("base.steps=null", "base.steps", "an integer"),
        ("grpo.learning_rate=1", "grpo.learning_rate", "grpo.optimizer.lr"),
        ("seed", "seed", "expected key=value"),
        ("seed=[1", "seed", "not valid YAML"),
        ("grpo.steps=${nowhere}", "grpo.steps", "nowhere"),
        ("grpo.steps=${run}", "grpo.steps", "Integer"),
        ("domains.math=3", "domains.math", "it is a section"),
        ("domains=3", "domains", "expected a mapping"),
        ("device=cpu runtime.gpus_per_worker=1", "runtime.gpus_per_worker", "device is cpu"),
        ("domains.math.max_new_tokens=384", "domains.math.max_new_tokens", "below sampling.max_context"),
        ("grpo.batch_tokens=8", "grpo.batch_tokens", "one whole conversation"),
        ("domains.math.reward=score", "domains.math.reward", "dotted path"),
        ("domains.math.corpus_share=-1", "domains.math.corpus_share", "0 or more"),
        ("domains.math.kind=general", "domains.math.kind", "math is built in"),
        ("domains.math.kind=generl", "domains.math.kind", "Did you mean general?"),
        ("judge.api_key_env=sk-123", "judge.api_key_env", "not the key itself"),
        ("domains.math.data.train=a.jsonl domains.math.data.split=''", "domains.math.data.split", "some text"),
        ("sparsify.data.column=body", "sparsify.data.train", "must name"),
        ("sparsify.sparse_accumulation=0", "sparsify.sparse_accumulation", "1 or more"),
        ("sparsify.context_length=2048", "sparsify.context_length", "model.max_position_embeddings (1024)"),
        ("sparsify.context_length=512 sparsify.batch_tokens=256", "sparsify.context_length", "sparsify.batch_tokens"),
        ("sparsify.join_documents=true", "sparsify.join_documents", "needs sparsify.context_length"),
        ("sparsify.needle.lengths=[128,4096]", "sparsify.needle.lengths", "model.max_position_embeddings (1024)"),
        ("sparsify.needle.lengths=[0]", "sparsify.needle.lengths", "2 tokens or more"),
    ],
)
def test_one_mistake_is_named_with_what_was_expected(override, key, says):
    found = problems_of(*override.split())
    assert list(found) == [key]
    assert says in found[key]


def test_a_value_may_refer_to_another():
    assert load_config("tiny", [], ["seed=7", "grpo.steps=${seed}"])[0].grpo.steps == 7


def test_no_domain_enabled_is_refused():
    names = load_config("tiny")[0].domains
    assert (
        "at least one domain" in problems_of(*(f"domains.{name}.enabled=false" for name in names))["domains"]
    )


def test_the_generated_texts_need_a_built_in_domain():
    names = load_config("tiny")[0].domains
    found = problems_of(*(f"domains.{name}.corpus_share=0" for name in names))
    assert "at least one built-in domain" in found["domains"]


def test_an_own_domain_needs_own_data():
    config, _ = load_config(
        "tiny", [], ["domains.riddles.data.train=riddles.jsonl", "domains.riddles.levels=[1]"]
    )
    assert config.domains["riddles"].data.train == "riddles.jsonl"
    assert "domains.riddles.data.train" in problems_of("domains.riddles.levels=[1]")["domains.riddles"]


def test_a_null_section_takes_earlier_values_back(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("domains: {math: {data: {train: a.jsonl, columns: {answer: solution}}}}\n")
    config, origins = load_config("tiny", [file])
    assert config.domains["math"].data.columns == {"answer": "solution"}
    assert origins.of("domains.math.data.columns.answer").where == f"{file}:1"
    assert load_config("tiny", [file], ["domains.math.data=null"])[0].domains["math"].data is None
    again = ["domains.math.data=null", "domains.math.data.train=b.jsonl"]
    assert load_config("tiny", [file], again)[0].domains["math"].data.columns == {}


@pytest.mark.parametrize("text", ["a: [1\n", "- 1\n", "seed: 1\nseed: 2\n"])
def test_a_broken_file_is_named(tmp_path, text):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    assert str(file) in problems_of(files=(file,))[str(file)]


def test_missing_preset_and_file_are_told_together(tmp_path):
    found = problems_of(preset="tniy", files=(tmp_path / "none.yaml",))
    assert "Did you mean tiny?" in found["--preset"]
    assert "none.yaml" in found["-c"]
    assert len(found) == 2


def test_a_preset_may_be_a_path(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("domains: {math: {}}\nseed: 9\n")
    assert load_config(str(file))[0].seed == 9


def test_the_printed_settings_read_back_the_same(tmp_path):
    config, _ = load_config("smoke", [], ["domains.math.data.train=x.jsonl"])
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    assert load_config(None, [file])[0] == config


FREE_NUMBERS: set[str] = set()
"""Keys of the type number for which any value will do; each needs a reason to stand here."""

FREE_TEXTS = {
    "judge.cache",
    "judge.canaries",
    "judge.data.train",  # looked at before the first stage
    "judge.data.heldout",
    "judge.data.subset",
    "model.path",  # looked at before the first stage
    "sparsify.data.train",  # the same
    "sparsify.data.heldout",
    "sparsify.data.subset",
    "domains.*.data.train",  # checked together with its domain
    "domains.*.data.heldout",
    "domains.*.data.subset",
}


def leaf_keys() -> list[Key]:
    return [key for key in key_table().values() if not key.section]


def test_every_number_has_a_range():
    numeric = [key.path for key in leaf_keys() if "number" in key.type or "integer" in key.type]
    assert len(numeric) > 100
    assert {path for path in numeric if range_of(path) is None} == FREE_NUMBERS


def test_every_text_has_its_choices_or_a_form():
    texts = [key.path for key in leaf_keys() if key.type in ("text", "text or null", "a list of texts")]
    assert len(texts) > 15
    assert {path for path in texts if range_of(path) is None} == FREE_TEXTS


def test_every_range_is_of_a_key_that_exists():
    paths = [key.path for key in leaf_keys()]
    patterns = [pattern for rule in RANGES for pattern in rule.patterns]
    assert [pattern for pattern in patterns if not any(fnmatchcase(path, pattern) for path in paths)] == []


def test_every_default_is_in_its_range():
    wrong = [
        key.path
        for key in leaf_keys()
        if key.default is not None and (rule := range_of(key.path)) and not rule.check(key.default)
    ]
    assert wrong == []


def test_every_key_and_section_has_a_help_text():
    assert [key.path for key in key_table().values() if not key.help] == []


def test_a_setting_with_choices_names_them_in_its_help():
    for key in leaf_keys():
        rule = range_of(key.path)
        if rule is not None and rule.choices and key.type == "text":
            assert all(choice in key.help for choice in rule.choices), key.path


def test_explain_tells_type_range_default_value_and_origin():
    config, origins = load_config("tiny", [], ["grpo.clip_low=0.1"])
    row = explain("grpo.clip_low", config, origins)
    assert row["help"].startswith("importance ratio")
    assert (row["default"], row["value"], row["set"]) == (0.2, 0.1, "override grpo.clip_low=0.1")
    assert "between 0 and 1" in row["must be"]
    assert any(inner["key"] == "grpo.optimizer" for inner in explain("grpo", config, origins)["keys"])
    with pytest.raises(UsageError, match=r"grpo\.clip_low"):
        explain("grpo.cliplow", config, origins)
