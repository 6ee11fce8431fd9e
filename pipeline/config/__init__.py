"""Settings: `schema` says what there is, `load` reads them, `validate` checks them, `explain` prints them."""

from pipeline.config.layers import ConfigError, Origin, Origins, Problem
from pipeline.config.load import DEFAULT_PRESET, load_config, presets
from pipeline.config.schema import Config

__all__ = [
    "DEFAULT_PRESET",
    "Config",
    "ConfigError",
    "Origin",
    "Origins",
    "Problem",
    "load_config",
    "presets",
]
