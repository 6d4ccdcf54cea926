import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentdyn.data import Batch, as_dataset, systems, train_test_split

X = np.random.default_rng(0).normal(size=(10, 20, 2))


@given(st.integers(2, 30), st.floats(0.01, 0.99), st.integers(0, 5))
def test_trials_are_dealt_out_once(trials, test, seed):
    train, held = train_test_split(
        np.arange(2.0 * trials).reshape(trials, 2, 1), test=test, seed=seed
    )
    ours, theirs = train["trial"].values.tolist(), held["trial"].values.tolist()
    assert sorted(ours + theirs) == list(range(trials))
    assert ours == sorted(ours)
    assert theirs == sorted(theirs)
    assert len(theirs) == min(max(round(test * trials), 1), trials - 1)
    np.testing.assert_array_equal(train["y"].values[:, 0, 0], 2.0 * np.array(ours))


def test_the_seed_decides():
    def held(seed):
        return train_test_split(X, seed=seed)[1]["trial"].values.tolist()

    assert held(0) == held(0)
    assert len({tuple(held(seed)) for seed in range(10)}) > 1


@given(st.integers(2, 30), st.floats(0.01, 0.99), st.integers(0, 3))
def test_the_last_steps_are_held_out(steps, test, gap):
    held_steps = min(max(round(test * steps), 1), steps - 1)
    if steps - held_steps - gap < 1:
        return
    train, held = train_test_split(np.arange(float(steps)), test=test, by="time", gap=gap)
    assert held.sizes["time"] == held_steps
    assert train["time"].values[-1] + gap + 1 == held["time"].values[0]
    assert train.sizes["time"] + gap + held.sizes["time"] == steps
    np.testing.assert_array_equal(held["y"].values.ravel(), held["time"].values)


def test_ragged_trials_are_cut_at_the_same_time():
    ds = as_dataset([X[0, :5], X[1, :14], X[2]], inputs=np.ones(20))
    train, held = train_test_split(ds, by="time", test=0.5)
    assert Batch.of(train).length.tolist() == [5, 10, 10]
    assert held["trial"].values.tolist() == [1, 2]
    assert Batch.of(held).length.tolist() == [4, 10]
    np.testing.assert_array_equal(held["y"].values[0, :4], X[1, 10:14])
    assert held["u"].shape == (2, 10, 1)


def test_other_variables_are_split_alongside():
    ds = systems.plrnn_spikes(trials=5, steps=20, neurons=3)
    train, held = train_test_split(ds, by="time")
    assert (train["rate"].shape, held["z"].shape, held["C"].shape) == (
        (5, 16, 3),
        (5, 4, 4),
        (3, 4),
    )


@pytest.mark.parametrize(
    ("argument", "data", "options"),
    [
        ("by", X[:1], {}),
        ("by", X, {"gap": 2}),
        ("by", X, {"by": "unit"}),
        ("test", X, {"test": 0}),
        ("test", X, {"test": 1.0}),
        ("gap", X, {"by": "time", "gap": 16}),
        ("gap", X, {"by": "time", "gap": -1}),
        ("gap", X[:, :1], {"by": "time"}),
    ],
)
def test_refusals(argument, data, options, refused):
    with refused(argument):
        train_test_split(data, **options)
