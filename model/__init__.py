"""The policy model: DeepSeek-V3.2's sparse attention and its dense twin, in one definition for learner and
sampler."""

from model.cache import LatentCache, SlotRows
from model.checkpoint import CheckpointError, cast_model, load_checkpoint, save_checkpoint
from model.convert import add_indexer, indexer_parameters, main_parameters, sparse_config
from model.modeling import DeepseekForCausalLM, NextTokens, PackedOutput
from model.packing import PackedBatch, SharedPrompts
from model.stats import DsaStats, LayerStats

__all__ = [
    "CheckpointError",
    "DeepseekForCausalLM",
    "DsaStats",
    "LatentCache",
    "LayerStats",
    "NextTokens",
    "PackedBatch",
    "PackedOutput",
    "SharedPrompts",
    "SlotRows",
    "add_indexer",
    "cast_model",
    "indexer_parameters",
    "load_checkpoint",
    "main_parameters",
    "save_checkpoint",
    "sparse_config",
]
