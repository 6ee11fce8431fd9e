"""Where actors live: what they say, what they are told, and how they end."""

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import ResourceError
from pipeline.runtime import InlineRuntime, RayRuntime
from specialists.agentic_search import SearchEnvironment

ROOT = Path(__file__).resolve().parents[2]


class Talker:
    def talk(self) -> dict[str, str]:
        warnings.warn("this argument goes away", UserWarning, stacklevel=1)
        logging.getLogger("some.library").warning("beware")
        library = logging.getLogger("transformers.modeling")
        logging.getLogger("transformers").propagate = False
        library.warning("not initialised")
        names = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "MALLOC_TRIM_THRESHOLD_")
        return {name: os.environ.get(name, "") for name in names}


@pytest.fixture(scope="module")
def runtime():
    config, _ = load_config("smoke", [], ["runtime.num_cpus=1"])
    runtime = RayRuntime(config.runtime)
    yield runtime
    runtime.shutdown()


def test_an_actor_writes_to_the_log_of_its_stage(runtime, tmp_path):
    for stage in ("first", "second"):
        runtime.log = tmp_path / "logs" / f"{stage}.log"
        talker = runtime.spawn(Talker, name="talker", num_cpus=0.1)
        environment = talker.call("talk").result(60)
        talker.stop()
        assert environment.pop("MALLOC_TRIM_THRESHOLD_")
        assert set(environment.values()) == {"1"}
    for stage in ("first", "second"):
        lines = (tmp_path / "logs" / f"{stage}.log").read_text().splitlines()
        for text in ("UserWarning: this argument goes away", "WARNING some.library: beware", "not initialised"):
            assert sum(text in line for line in lines) == 1, lines


def test_a_log_that_can_not_be_written_stops_nobody(runtime, tmp_path):
    (tmp_path / "file").write_text("")
    runtime.log = tmp_path / "file" / "stage.log"
    talker = runtime.spawn(Talker, name="talker", num_cpus=0.1)
    assert talker.call("talk").result(60)
    talker.stop()


def test_what_the_cluster_can_never_give_is_refused_at_once(runtime):
    with pytest.raises(ResourceError, match="talker needs 64 CPU and the cluster has 1"):
        runtime.spawn(Talker, name="talker", num_cpus=64)


def test_inline_actors_share_this_process():
    runtime = InlineRuntime()
    with pytest.warns(UserWarning, match="goes away"):
        runtime.spawn(Talker, name="talker").call("talk").result()
    runtime.shutdown()


@pytest.mark.parametrize(("given", "seen"), [(None, "cpu"), ("cuda", "cuda")])
def test_the_search_index_leaves_the_gpu_to_torch_unless_told_otherwise(given, seen, tmp_path, monkeypatch):
    (tmp_path / "bm25s.py").write_text("import os\nfound = os.environ['JAX_PLATFORMS']\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bm25s", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", given or "")
    if given is None:
        monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(AttributeError, match="BM25"):
        SearchEnvironment([{"id": "a", "title": "t", "text": "t"}]).call("search", {"query": "t"})
    assert sys.modules["bm25s"].found == seen
    del sys.modules["bm25s"]


def test_the_environment_that_the_user_set_stays():
    program = "from pipeline.quiet import environment, set_environment; set_environment(); print(environment())"
    given = {"HF_HUB_DISABLE_PROGRESS_BARS": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | given, capture_output=True, text=True, check=True
    )
    assert "'HF_HUB_DISABLE_PROGRESS_BARS': '0'" in done.stdout
    assert "'HF_DATASETS_DISABLE_PROGRESS_BARS': '1'" in done.stdout
