"""Smoothers as objects: settings, equality, pickle, storage, and functions of one's own."""

from __future__ import annotations

import copy
import inspect
import pickle
from functools import partial

import pytest
import torch
from pyro.distributions import Normal

import latentdyn as ld
from latentdyn import smooth
from latentdyn.errors import InputError
from latentdyn.smooth import Smoother, as_smoother
from latentdyn.smoother import smoother
from tests.helpers import assert_close

OURS = sorted(n for n in smooth.__all__ if isinstance(getattr(smooth, n), Smoother))
QUIET = ld.fit.Training(progress=False)


@smoother(batched=True)
def at_once(model, y, u=None, *, twice=False):
    """A smoother of one's own, with traits."""
    return smooth.kalman(model, y, u)


def one_by_one(model, y, u=None):
    """A plain function."""
    assert model.transition.A.dim() == 2  # never all draws at once
    return smooth.kalman(model, y, u)


def walk():
    torch.manual_seed(0)
    return ld.StateSpace(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 1))


def test_which_functions_are_smoothers():
    names = "ekf forced hmm iekf kalman laplace particle switching ukf"
    assert names.split() == OURS


@pytest.mark.parametrize("name", OURS)
def test_an_object_that_reads_as_its_function(name):
    found = getattr(smooth, name)
    assert found.name == found.__name__ == repr(found) == name
    assert list(inspect.signature(found).parameters)[:3] == ["model", "y", "u"]
    assert "Args:" in inspect.getdoc(found)
    assert inspect.isroutine(found)  # what help() and Sphinx ask


@pytest.mark.parametrize("name", OURS)
def test_equal_by_value(name):
    found = getattr(smooth, name)
    assert pickle.loads(pickle.dumps(found)) == found == copy.deepcopy(found)
    assert hash(copy.deepcopy(found)) == hash(found)
    assert all(getattr(smooth, other) != found for other in OURS if other != name)


def test_settings():
    thrice = smooth.iekf.with_(sweeps=3)
    assert repr(thrice) == "iekf.with_(sweeps=3)"
    assert thrice == smooth.iekf.with_(sweeps=2).with_(sweeps=3) != smooth.iekf
    assert thrice.plain == smooth.iekf
    assert as_smoother(partial(smooth.iekf, sweeps=3)) == thrice
    assert as_smoother(partial(thrice, route=None)) == thrice.with_(route=None)
    again = pickle.loads(pickle.dumps(thrice))
    assert again == thrice
    assert hash(again) == hash(thrice)
    assert again.warm
    with pytest.raises(InputError, match=r"settings.*sweeps.*iekf.*'sweps'"):
        smooth.iekf.with_(sweps=3)


def test_settings_are_used_and_the_call_has_the_last_word():
    model = ld.StateSpace(ld.transitions.PLRNN(2), ld.emissions.Poisson(2, 3)).double()
    y = model.simulate(steps=20, seed=0)["y"]
    once, thrice = (smooth.iekf(model, y, sweeps=n).mean for n in (1, 3))
    assert not torch.allclose(once, thrice, rtol=0, atol=1e-9)
    assert torch.equal(smooth.iekf.with_(sweeps=3)(model, y).mean, thrice)
    assert torch.equal(smooth.iekf.with_(sweeps=3)(model, y, sweeps=1).mean, once)


@pytest.mark.parametrize("name", [n for n in OURS if getattr(smooth, n).filters])
def test_filters_give_increments(name):
    model = walk().double()
    q = getattr(smooth, name)(model, [0.1, 0.5, -0.2])
    assert_close(q.increments.sum(-1), q.log_evidence)


@pytest.mark.parametrize("name", OURS)
def test_warm_ones_take_a_start(name):
    found = getattr(smooth, name)
    assert found.warm == ("start" in inspect.signature(found).parameters)


def test_functions_of_ones_own():
    own = as_smoother(one_by_one)
    assert (own.batched, own.warm, own.filters) == (False, False, False)
    assert own == as_smoother(one_by_one)
    assert pickle.loads(pickle.dumps(own)) == own
    assert pickle.loads(pickle.dumps(at_once.with_(twice=True))) == at_once.with_(twice=True)
    assert as_smoother(partial(one_by_one, u=None)).name.startswith("functools.partial")
    with pytest.raises(InputError, match=r"smoother.*'ekf'.*ld\.smooth\.ekf"):
        as_smoother("ekf")


def test_as_a_method():
    class Holder:
        find = smooth.kalman

    assert Holder.find == smooth.kalman
    assert Holder().find.__func__ == smooth.kalman


@pytest.mark.parametrize("found", [one_by_one, at_once, at_once.with_(twice=True)])
def test_em_and_collapsed_programs_take_ones_own(found):
    y = [0.3, 0.5, -0.2, 0.1, 0.9, 1.1]
    ours = ld.fit.em(walk(), y, steps=3, smoother=smooth.kalman, progress=False)
    own = ld.fit.em(walk(), y, steps=3, smoother=found, progress=False)
    assert own.history == ours.history
    prior = ld.priors.Independent({"transition.b": Normal(0.0, 1.0)})
    model = ld.StateSpace(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 1), prior=prior)
    collapsed = model.collapse(found)
    assert collapsed.batched == as_smoother(found).batched
    post = ld.fit.svi(collapsed, y, steps=2, training=QUIET)
    assert len(post.sample(draws=3)["z"]) == 3


@pytest.mark.parametrize(
    "found", [smooth.kalman, smooth.iekf.with_(sweeps=3), partial(smooth.ukf, spread=0.5)]
)
def test_saved_by_name_and_settings(tmp_path, found):
    y = [0.3, 0.5, -0.2, 0.1, 0.9, 1.1]
    post = ld.fit.em(walk(), y, steps=2, smoother=found, progress=False)
    post.save(tmp_path / "fit")
    loaded = ld.load(tmp_path / "fit")
    assert loaded.model.smoother == post.model.smoother == as_smoother(found)


def test_ones_own_cannot_be_named_in_a_file(tmp_path):
    @smoother()
    def kalman(model, y, u=None):
        """Of the same name as one of ours."""
        return smooth.kalman(model, y, u)

    post = ld.fit.em(walk(), [0.3, 0.5, 0.1], steps=1, smoother=kalman, progress=False)
    with pytest.raises(InputError, match=r"smoother of latentdyn\.smooth"):
        post.save(tmp_path / "fit")
