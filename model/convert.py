"""From dense to sparse, and which parameters are the indexer's."""

from __future__ import annotations

import torch
from torch import nn
from transformers import DeepseekV3Config, DeepseekV32Config

from model.checkpoint import cast_model
from model.modeling import DeepseekForCausalLM


def indexer_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that the KL loss trains."""
    return [parameter for name, parameter in model.named_parameters() if ".indexer." in name]


def main_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Everything else: the parameters that language-model and RL losses train."""
    return [parameter for name, parameter in model.named_parameters() if ".indexer." not in name]


def add_indexer(
    dense: DeepseekForCausalLM, index_n_heads: int, index_head_dim: int, index_topk: int, seed: int
) -> DeepseekForCausalLM:
    """Makes a deepseek_v32 model of a deepseek_v3 one: all weights copied, new indexers.

    Indexer linears are N(0, 0.02), its LayerNorm is 1 and 0. The draw depends on the seed alone. The dense
    model is left as it was.
    """
    if dense.config.model_type != "deepseek_v3":
        raise ValueError(f"add_indexer needs a dense deepseek_v3 model, not {dense.config.model_type}")
    assert isinstance(dense.config, DeepseekV3Config)
    config = sparse_config(dense.config, index_n_heads, index_head_dim, index_topk)
    # Building the module draws initial weights that are all replaced; the caller's stream must not feel it.
    with torch.random.fork_rng(devices=[]):
        sparse = cast_model(DeepseekForCausalLM(config), dense.dtype)
    torch.nn.Module.to(sparse, dense.device)
    missing, unexpected = sparse.load_state_dict(dense.state_dict(), strict=False)
    if unexpected or any(".indexer." not in name for name in missing):
        raise RuntimeError(f"dense and sparse weights do not match: missing {missing}, unexpected {unexpected}")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sparse.named_parameters():
            if ".indexer." in name and ".k_norm." not in name:
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, 0.02, generator=generator))
    return sparse.train(dense.training)


def sparse_config(
    dense: DeepseekV3Config, index_n_heads: int, index_head_dim: int, index_topk: int
) -> DeepseekV32Config:
    """The deepseek_v32 config with the dense config's shapes and the given indexer."""
    derived = ("model_type", "architectures", "transformers_version", "num_mtp_layers",
    "num_nextn_predict_layers",
               "rope_interleave", "pretraining_tp", "qk_head_dim", "head_dim", "layer_types")  # fmt: skip
    fields = {key: value for key, value in dense.to_dict().items() if key not in derived}
    return DeepseekV32Config(
        **fields, index_n_heads=index_n_heads, index_head_dim=index_head_dim, index_topk=index_topk
    )
