"""Examples run from top to bottom."""

from __future__ import annotations

import pathlib
import runpy
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
RECORDINGS = {
    "cockroach": "cockroach_al_CAL1V.nc",
    "eeg_dynamics": "eeg64_rest.nc",
    "nile": "univariate_classics.nc",
    "place_cells": "ca1_place_cells_animal1.nc",
    "stochastic_volatility": "gbp_usd_returns.nc",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path, monkeypatch, tmp_path, capsys):
    recording = RECORDINGS.get(path.stem)
    if recording and not (ROOT / "../shared/data" / recording).exists():
        pytest.skip(f"{recording} is not in ../shared/data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "--quick"])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
