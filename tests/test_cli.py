"""The command line, run in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import latentdyn as ld
from latentdyn.cli import choices, main
from latentdyn.cli.main import EMISSIONS, ENCODERS, MODELS
from latentdyn.cli.period import strongest_period
from latentdyn.cli.read import read

FILES = {
    "posterior.json",
    "weights.safetensors",
    "data.nc",
    "posterior.nc",
    "run.json",
    "report.html",
}
TINY = ["--steps", "12", "--draws", "30", "--evaluations", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def file(folder):
    """Two variables on one clock, in a file with a title."""
    rng = np.random.default_rng(0)
    clock = {"time": ("time", 0.1 * np.arange(60), {"units": "s"})}
    counts = (("time", "neuron"), rng.poisson(0.5, (60, 4)).astype(np.uint8))
    field = (("time", "probe"), 1e-3 * rng.normal(size=(60, 2)).cumsum(0), {"units": "V"})
    ds = xr.Dataset({"counts": counts, "field": field}, clock, {"title": "Two recordings"})
    ds.to_netcdf(folder / "data.nc", engine="h5netcdf")
    return str(folder / "data.nc")


@pytest.fixture(scope="module")
def run(folder, file):
    out = str(folder / "run")
    args = ["--var", "counts", "--state-dim", "2", "--select", "time=0:50", "--out", out]
    assert main(["fit", file, *args, *TINY]) == 0
    return out


def test_fit_writes_a_run(run):
    assert {p.name for p in Path(run).iterdir()} >= FILES
    settings = json.loads((Path(run) / "run.json").read_text())["settings"]
    assert settings["emission"] == "poisson"
    post = ld.load(run)
    assert post.data["y"].shape == (1, 50, 4)
    assert type(post.model.prior).__name__ == "ManifoldAttractor"
    with xr.open_datatree(Path(run) / "posterior.nc", engine="h5netcdf") as tree:
        assert tree["posterior"].sizes["draw"] == 30
        assert np.isfinite(tree["posterior"]["transition.W"]).all()
    assert "Two recordings" in (Path(run) / "report.html").read_text()


def test_check_prints_readings(run, capsys):
    assert main(["check", run]) == 0
    said = capsys.readouterr().out
    for word in ("k-hat of the parameters", "held-out log score", "bits per spike"):
        assert word in said


def test_check_of_a_broken_fit_is_one(run, tmp_path, capsys):
    post = ld.load(run)
    with torch.no_grad():
        post.model.emission.C[0, 0] = torch.nan
    post.save(tmp_path)
    assert main(["check", str(tmp_path)]) == 1
    assert "emission.C" in capsys.readouterr().out


def test_report_writes_the_page_again(run):
    page = Path(run) / "report.html"
    page.unlink()
    assert main(["report", run]) == 0
    assert page.stat().st_size > 100_000
    assert (Path(run) / "pictures" / "latents.png").exists()


def test_small_numbers_are_standardised_and_shown_in_their_units(file, tmp_path, capsys):
    args = ["--var", "field", "--model", "linear", "--state-dim", "2", "--prior", "ard"]
    assert main(["fit", file, *args, "--out", str(tmp_path / "run"), *TINY, "--restarts", "2"]) == 0
    assert "standardised" in capsys.readouterr().out
    post = ld.load(tmp_path / "run")
    assert float(post.data["y"].std()) == pytest.approx(1, rel=0.01)
    assert len(post.fits) == 2
    assert "units of measurement</td><td>V" in (tmp_path / "run" / "report.html").read_text()


def test_a_csv_with_dates(tmp_path, capsys):
    table = pd.DataFrame(
        {
            "date": pd.date_range("2020-01-31", periods=40, freq="D"),
            "a": np.random.default_rng(0).normal(size=40),
            "b": np.arange(40) % 7.0,
        }
    )
    table.to_csv(tmp_path / "table.csv", index=False)
    ds = read(str(tmp_path / "table.csv"))
    assert ds["y"].shape == (1, 40, 2)
    assert ds["time"].dtype.kind == "M"
    args = ["--state-dim", "2", "--encoder", "bigru", "--model", "gru", "--holdout", "0"]
    assert (
        main(["fit", str(tmp_path / "table.csv"), *args, "--out", str(tmp_path / "run"), *TINY])
        == 0
    )
    assert "held-out entries: none" in capsys.readouterr().out


def test_demo_quick(tmp_path, capsys):
    assert main(["demo", "--quick", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "of 33 held-out years" in said
    assert "transition.W[0, 1]" in said
    assert {p.name for p in tmp_path.iterdir()} >= FILES | {"forecast.nc", "truth.nc"}
    with xr.open_dataset(tmp_path / "forecast.nc", engine="h5netcdf") as fan:
        assert fan["time"].values.tolist() == list(range(1976, 2009))


def test_the_same_seed_gives_the_same_fit(run, file, tmp_path):
    """Whatever state torch's generator is in."""
    args = ["--var", "counts", "--state-dim", "2", "--select", "time=0:50", *TINY]
    torch.manual_seed(1)
    assert main(["fit", file, *args, "--out", str(tmp_path)]) == 0
    assert ld.load(tmp_path).history["elbo"] == ld.load(run).history["elbo"]


WRONG = {
    "missing file": (["fit", "nowhere.nc"], "'data': expected a netCDF or csv file"),
    "several variables": (["fit", "FILE"], "choose among ['counts', 'field']"),
    "unknown variable": (["fit", "FILE", "--var", "count"], "'--var': expected a variable among"),
    "unknown dim": (["fit", "FILE", "--var", "counts", "--select", "t=0:5"], "'--select'"),
    "not a number": (["fit", "FILE", "--var", "counts", "--select", "time=a:5"], "'--select'"),
    "nothing left": (["fit", "FILE", "--var", "counts", "--select", "time=90:99"], "'--select'"),
    "counts of reals": (["fit", "FILE", "--var", "field", "--emission", "poisson"], "'y'"),
    "prior of another model": (
        ["fit", "FILE", "--var", "field", "--model", "gru", "--prior", "manifold_attractor"],
        "'--prior'",
    ),
    "no run": (["check", "nowhere"], "'run': expected a folder"),
    "no run to report": (["report", "nowhere"], "'run': expected a folder"),
}


@pytest.mark.parametrize(("args", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_one_line_and_two(args, message, file, tmp_path, capsys):
    args = [file if a == "FILE" else a for a in args]
    if args[0] == "fit":
        args += ["--out", str(tmp_path)]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_file_that_is_not_netcdf(tmp_path, capsys):
    (tmp_path / "text.nc").write_text("hello")
    assert main(["fit", str(tmp_path / "text.nc")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("args", [[], ["fit", "x", "--model", "foo"], ["fit", "x", "--steps", "0"]])
def test_what_argparse_refuses_is_two(args):
    assert main(args) == 2


def test_help_is_zero(capsys):
    assert main(["--help"]) == 0
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_the_command_line_can_be_built(name):
    transition = choices.make_transition(name, 4, 1)
    assert (transition.state_dim, transition.input_dim) == (4, 1)
    assert type(transition).__name__ in ld.transitions.__all__


def test_every_emission_and_encoder_of_the_command_line_can_be_built():
    ds = ld.data.as_dataset(np.array([[0, 1], [2, 1], [1, 0]]))
    for name in EMISSIONS[1:]:
        assert choices.make_emission(name, ds, 3, 0).obs_dim == 2
    for name in ENCODERS:
        assert choices.make_encoder(name, ds, 3, 0).obs_dim == 2


def test_the_emission_suits_the_data():
    def name(y):
        return choices.emission_name(ld.data.as_dataset(y), "auto")

    rng = np.random.default_rng(0)
    assert name(rng.normal(size=(20, 2))) == "gaussian"
    assert name(rng.poisson(1.0, (20, 2))) == "poisson"
    assert name(rng.integers(0, 2, (20, 2))) == "bernoulli"
    assert name(rng.integers(400, 600, (20, 2))) == "gaussian"


def test_long_series_are_cut_into_windows():
    assert choices.batches(1, 6400, None, None) == (200, 10)
    assert choices.batches(1, 500, None, None) == (None, None)
    assert choices.batches(100, 200, None, None) == (None, 10)
    assert choices.batches(1, 6400, 100, 4) == (100, 4)
    assert choices.tree_draws(400, 409_600) == 48


def test_the_strongest_period_of_a_sine():
    t = np.arange(200)
    y = np.sin(2 * np.pi * t / 11)[:, None] + np.array([0.0, 5.0])  # (T, D)
    assert float(strongest_period(y[None])) == pytest.approx(11, abs=0.1)


def test_the_module_runs():
    done = subprocess.run([sys.executable, "-m", "latentdyn.cli", "--help"], capture_output=True)
    assert done.returncode == 0
    assert b"report" in done.stdout
