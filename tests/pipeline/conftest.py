"""Stages that take no time, for tests of what is around the stages."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def fakes(monkeypatch):
    """Puts the stages of `fake_stages.py` in the place of the real ones, for one test."""
    spec = importlib.util.spec_from_file_location("fake_stages", Path(__file__).with_name("fake_stages.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.install(monkeypatch.setitem)
