"""Folders of posteriors: whole or not there, what was written or refused, never a door."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from torch.distributions.transforms import AffineTransform, ExpTransform

import latentdyn as ld
from latentdyn.cli import main

QUIET = ld.fit.Training(progress=False)
Y = np.random.default_rng(0).normal(size=(30, 2))


def fitted(y=Y, **sites):
    model = ld.StateSpace(
        ld.transitions.Linear(1), ld.emissions.Gaussian(1, 2), prior=ld.priors.Independent(sites)
    )
    return ld.fit.svi(model, y, steps=2, training=QUIET)


@pytest.fixture(scope="module")
def post():
    return fitted()


@pytest.mark.parametrize(
    "prior",
    [
        dist.TransformedDistribution(dist.Normal(0.0, 1.0), [ExpTransform()]),
        dist.TransformedDistribution(dist.Normal(0.0, 1.0), [AffineTransform(1.0, 2.0)]),
        dist.FoldedDistribution(dist.Normal(0.0, 2.0)),
        dist.Normal(0.0, 1.0).mask(True),
    ],
)
def test_priors_made_of_others_come_back(prior, tmp_path):
    name = "emission.d" if prior.support is dist.constraints.real else "emission.R"
    name = "emission.d" if isinstance(prior, dist.MaskedDistribution) else name
    post = fitted(**{name: prior})
    post.save(tmp_path)
    back = ld.load(tmp_path).model.prior
    x = torch.tensor([0.5, 1.5])
    torch.testing.assert_close(back.distributions[name].log_prob(x), prior.log_prob(x))


def test_attributes_dates_and_names_of_data(tmp_path):
    table = pd.DataFrame(Y, index=pd.date_range("1610", periods=30, freq="YS", unit="s"))
    table.attrs = {"filtered": True, "reference": None, "probe": {"shanks": 4}, "when": [1, "a"]}
    post = fitted(table)
    post.save(tmp_path)
    back = ld.load(tmp_path)
    np.testing.assert_array_equal(back.data["time"].values, post.data["time"].values)
    assert back.data["time"].dtype == post.data["time"].dtype
    assert back.data["y"].attrs["probe"] == '{"shanks": 4}'
    odd = fitted(pd.DataFrame(Y, columns=["a\0b", "c"]))
    with pytest.raises(ld.InputError, match="'unit': expected names without NUL"):
        odd.save(tmp_path / "odd")
    assert not (tmp_path / "odd").exists()


def test_what_stands_in_the_folder_stays(post, tmp_path):
    mine = tmp_path / "thesis.txt", tmp_path / "data.nc"
    for file in mine:
        file.write_text("mine")
    for _ in range(3):
        post.save(tmp_path)
    assert [file.read_text() for file in mine] == ["mine", "mine"]
    assert len(list(tmp_path.iterdir())) == 5
    ld.load(tmp_path)
    with pytest.raises(ld.InputError, match="'folder': expected a folder"):
        post.save(tmp_path / "thesis.txt")


SAVER = """
import sys, latentdyn as ld
a, b = (ld.load(f) for f in sys.argv[2:4])
print("ready", flush=True)
while True:
    a.save(sys.argv[1]); b.save(sys.argv[1])
"""


def test_a_save_that_is_killed_leaves_one_of_two_fits(post, tmp_path):
    other = fitted(3 * Y)
    post.save(tmp_path / "a")
    other.save(tmp_path / "b")
    post.save(tmp_path / "c")
    wait = np.random.default_rng(0).uniform(0, 0.1, 6)
    whole = [p.sample(3, seed=0)["emission.d"] for p in (post, other)]
    for seconds in wait:
        args = [sys.executable, "-c", SAVER, *(str(tmp_path / x) for x in "cab")]
        with subprocess.Popen(args, stdout=subprocess.PIPE) as running:
            running.stdout.readline()
            time.sleep(seconds)
            os.kill(running.pid, signal.SIGKILL)
        found = ld.load(tmp_path / "c").sample(3, seed=0)["emission.d"]
        assert any(torch.equal(found, x) for x in whole)


def test_any_changed_byte_is_refused(post, tmp_path):
    post.save(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("posterior.json", "weights.safetensors", "data.nc"):
        path = tmp_path / name
        whole = path.read_bytes()
        for place in rng.integers(0, len(whole), 15):
            changed = bytearray(whole)
            changed[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(changed))
            with pytest.raises(ld.InputError):
                ld.load(tmp_path)
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ld.InputError):
            ld.load(tmp_path)
        path.unlink()
        with pytest.raises(ld.InputError):
            ld.load(tmp_path)
        path.write_bytes(whole)
    ld.load(tmp_path)


def signed(folder, change):
    """An index that a stranger wrote, with files and digest in order."""
    from latentdyn.posterior.files import write_all

    config = json.loads((folder / "posterior.json").read_text())
    data, weights = (folder / n for n in ("data.nc", "weights.safetensors"))
    raw = {"weights.safetensors": weights.read_bytes(), "data.nc": data.read_bytes()}
    config = json.loads(change(json.dumps({k: v for k, v in config.items() if k != "digest"})))
    write_all(folder, config, {n: (lambda p, b=b: p.write_bytes(b)) for n, b in raw.items()})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("latentdyn.transitions.linear:Linear", "latentdyn.cli.__main__:main"),
        ("latentdyn.transitions.linear:Linear", "latentdyn.posterior.files:INDEX"),
        ("latentdyn.transitions.linear:Linear", "__main__:NotThere"),
        ("latentdyn.transitions.linear:Linear", "subprocess:run"),
        ('"state_dim": 1', '"state_dim": 1000000'),
    ],
)
def test_hostile_indices_are_refused(old, new, post, tmp_path):
    post.save(tmp_path)
    signed(tmp_path, lambda text: text.replace(old, new))
    with pytest.raises(ld.InputError, match="'folder'"):
        ld.load(tmp_path)


@pytest.mark.parametrize("kind", ["link", "storage", "bomb"])
def test_hostile_data_are_refused(kind, post, tmp_path):
    post.save(tmp_path)
    secret = tmp_path / "secret.nc"
    xr.Dataset({"y": ("x", np.arange(3.0))}).to_netcdf(secret, engine="h5netcdf")
    with h5py.File(tmp_path / "data.nc", "a") as file:
        if kind == "link":
            file["leak"] = h5py.ExternalLink(str(secret), "/y")
        elif kind == "storage":
            file.create_dataset("leak", (24,), "u1", external=[(str(secret), 0, 24)])
        else:
            file.create_dataset("leak", (10**11,), "f8", chunks=(10**6,), compression="gzip")
    signed(tmp_path, lambda text: text)
    with pytest.raises(ld.InputError, match="'folder'"):
        ld.load(tmp_path)


def test_the_command_line_says_so_too(post, tmp_path, capsys):
    post.save(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"")
    assert main(["check", str(tmp_path)]) == 2
    assert "another weights.safetensors" in capsys.readouterr().err
