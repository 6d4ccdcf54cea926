"""Checkpoints: exact, of this fit only, and never what was not written."""

import numpy as np
import pytest
import torch

import latentdyn as ld
from latentdyn.report.readings import readings

Y = np.random.default_rng(0).normal(size=(3, 40, 2))


def model():
    torch.manual_seed(0)
    return ld.StateSpace(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 2)).double()


def training(folder, **settings):
    return ld.fit.Training(
        progress=False, evaluations=4, checkpoint=folder, initialise=False, **settings
    )


def fit(folder=None, y=Y, steps=8, resume=None, callbacks=(), learning_rate=0.02, **settings):
    return ld.fit.svi(
        model(), y, steps=steps, seed=1, callbacks=callbacks, resume_from=resume,
        learning_rate=learning_rate, batch_size=2, training=training(folder, **settings),
    )  # fmt: skip


def stop(progress):
    return "stop"


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"y": Y + 1}, "data"),
        ({"steps": 9}, "steps"),
        ({"learning_rate": 0.01}, "learning_rate"),
        ({"ramp": 0.0}, "ramp"),
        ({"clip": 1.0}, "clip"),
    ],
)
def test_checkpoints_of_other_fits_are_refused(other, name, tmp_path):
    fit(tmp_path, callbacks=[stop])
    with pytest.raises(ld.InputError, match=rf"'resume_from': expected a checkpoint of {name}"):
        fit(resume=tmp_path, **other)


def test_changed_bytes_are_refused(tmp_path):
    fit(tmp_path, callbacks=[stop])
    path = tmp_path / "chain0" / "checkpoint.safetensors"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 30):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        with pytest.raises(ld.InputError, match="'resume_from'"):
            fit(resume=tmp_path)
    path.write_bytes(whole)
    assert fit(resume=tmp_path).history["elbo"] == fit().history["elbo"]


def test_an_early_stop_is_kept(tmp_path):
    flat = np.zeros_like(Y)
    done = fit(tmp_path, y=flat, steps=400, patience=1, ramp=0.0, learning_rate=0.5)
    assert done.history["step"][-1] < 400
    again = fit(y=flat, steps=400, resume=tmp_path, patience=1, ramp=0.0, learning_rate=0.5)
    assert again.history["step"] == done.history["step"]


def test_carried_states_go_on_exactly(tmp_path):
    """Stopped between two windows of which the second starts from where the first has ended."""

    def go(folder=None, resume=None, callbacks=()):
        torch.manual_seed(0)
        pulled = ld.StateSpace(ld.transitions.PLRNN(2), ld.emissions.Identity(2, 2)).double()
        return ld.fit.teacher_forcing(
            pulled, Y, steps=8, batch_size=2, callbacks=callbacks, resume_from=resume,
            forcing=ld.fit.Forcing(interval=4, window=5, carry=2),
            training=ld.fit.Training(
                torch.optim.RAdam, ramp=0.0, progress=False, evaluations=8, checkpoint=folder
            ),
        )  # fmt: skip

    whole = go(tmp_path / "whole")
    go(tmp_path / "part", callbacks=[lambda p: "stop" if p.step == 2 else None])
    assert go(resume=tmp_path / "part").history["elbo"] == whole.history["elbo"]


def test_a_folder_that_cannot_be_written_warns_and_goes_on(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="no checkpoint at step"):
        post = fit(tmp_path / "file")
    assert post.history["step"][-1] == 8


def test_an_interrupted_fit_says_so():
    def interrupt(progress):
        raise KeyboardInterrupt

    post = fit(callbacks=[interrupt])
    assert post.attrs["interrupted"]
    assert "interrupted" not in fit().attrs
    said = {r.name: r for r in readings(post)}
    assert said["interrupted"].verdict == "poor"
