"""The table of tiles: defaults, entries, and an entry that no kernel reads."""

import pytest

from kernels import tuning


def test_an_entry_overrides_and_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"topk": {"cpu": {"k=8": {"tile": 512}, "k=9": {"tiles": 1}}}}
    monkeypatch.setattr(tuning, "_table", lambda: table)
    monkeypatch.setattr(tuning, "_device", lambda: "cpu")
    default = {"tile": 1024, "num_warps": 4}
    assert tuning.config("topk", "k=8", default) == {"tile": 512, "num_warps": 4}
    assert tuning.config("topk", "k=7", default) == default and default["tile"] == 1024
    with pytest.raises(KeyError, match=r"sets \['tiles'\] for topk at 'k=9'"):
        tuning.config("topk", "k=9", default)


def test_the_committed_table_holds_numbers() -> None:
    entries = [entry for devices in tuning._table().values() for keys in devices.values() for entry in keys.values()]
    assert entries and all(isinstance(value, int) for entry in entries for value in entry.values())
