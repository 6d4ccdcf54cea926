"""Names that both sides have are matched; positions decide only where one side has none."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import latentdyn as ld
from latentdyn.data.ahead import future_inputs, plain_inputs
from latentdyn.data.matching import like, order_of

DAYS = pd.date_range("2024-01-01", periods=12, freq="D")
TABLE = pd.DataFrame(np.arange(24.0).reshape(12, 2), index=DAYS, columns=["price", "warmth"])


def data(index=DAYS[:9]):
    y = pd.Series(np.arange(9.0), index=index)
    return ld.data.as_dataset(y, inputs=TABLE.iloc[:9].set_index(index))


@pytest.mark.parametrize(
    "given",
    [
        TABLE.iloc[9:],
        TABLE.iloc[9:][["warmth", "price"]],  # another order
        TABLE,  # the past as well: the steps to come are chosen by date
        TABLE.iloc[9:].to_numpy(),  # no names: positions
        TABLE.iloc[9:].to_numpy()[::-1][::-1],  # a view
        TABLE.iloc[9:].to_numpy().astype(">f4"),
        TABLE.iloc[9:].reset_index(drop=True),  # no dates
        torch.as_tensor(TABLE.iloc[9:].to_numpy().copy()),
        xr.DataArray(TABLE.iloc[9:].to_numpy()[None], dims=("trial", "time", "input")),
        TABLE.iloc[9:].to_numpy().tolist(),
    ],
)
def test_future_inputs_are_those_of_the_steps_to_come(given):
    found = future_inputs(given, data(), 3, 2, "u")
    np.testing.assert_array_equal(found, TABLE.to_numpy()[None, 9:])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (TABLE.iloc[9:].rename(columns={"price": "cost"}), r"2 inputs \['price', 'warmth'\].*cost"),
        (TABLE.iloc[:3], "inputs at the steps to come, 2024-01-10"),
        (TABLE.iloc[9:11], "steps to come"),
        (TABLE.iloc[9:].to_numpy()[:, :1], "the 2 inputs.*got 1"),
        (TABLE.iloc[9:].to_numpy()[:2], "shape"),
        (TABLE.iloc[9:].where(TABLE.iloc[9:] != 20.0), r"finite numbers.*nan at trial 0, step 1"),
        (None, "pass u="),
    ],
)  # fmt: skip
def test_future_inputs_that_differ_are_refused(given, message):
    with pytest.raises(ld.InputError, match=rf"'u': .*{message}"):
        future_inputs(given, data(), 3, 2, "u")


def test_trials_of_future_inputs_are_matched_by_name():
    dims, values = ("trial", "time", "unit"), np.arange(4.0).reshape(2, 2, 1)
    y = xr.DataArray(np.zeros((2, 5, 1)), dims=dims, coords={"trial": ["b", "a"]})
    u = xr.DataArray(values, dims=dims, coords={"trial": ["a", "b"]})
    found = future_inputs(u, ld.data.as_dataset(y, inputs=np.zeros((5, 1))), 2, 1, "u")
    assert found[..., 0].tolist() == [[2.0, 3.0], [0.0, 1.0]]


def test_inputs_of_simulations_have_no_holes_and_no_names_to_match():
    assert plain_inputs(TABLE, 4, 12, 2, "inputs").shape == (1, 12, 2)
    with pytest.raises(ld.InputError, match="'inputs': expected finite"):
        plain_inputs(TABLE.where(TABLE > 3), 1, 12, 2, "inputs")


def test_new_data_take_the_order_of_known_units():
    known = ld.data.as_dataset(TABLE)
    turned = like(ld.data.as_dataset(TABLE[["warmth", "price"]]), known, "new_y")
    np.testing.assert_array_equal(turned["y"].values, known["y"].values)
    plain = like(ld.data.as_dataset(TABLE.to_numpy()), known, "new_y")
    np.testing.assert_array_equal(plain["y"].values, known["y"].values)
    with pytest.raises(ld.InputError, match=r"'new_y': .*\['cost'\] are not known"):
        like(ld.data.as_dataset(TABLE.rename(columns={"price": "cost"})), known, "new_y")
    assert order_of(np.array(["a"]), np.array(["a"]), "y", "unit") is None


def test_views_tables_and_foreign_bytes_are_known_values():
    A = np.array([[0.9, 0.1], [0.0, 0.8]])
    for given in (A[::-1, ::-1][::-1, ::-1], A.astype(">f8"), pd.DataFrame(A), xr.DataArray(A)):
        made = ld.transitions.Linear.of(A=given, Q=[1.0, 1.0])
        np.testing.assert_array_equal(made.A.detach(), A)


def test_every_door_of_new_data_and_inputs_goes_by_name():
    rng = np.random.default_rng(0)
    y = pd.DataFrame(rng.normal(size=(40, 2)) * [1, 5], columns=["left", "right"])
    ds = ld.data.as_dataset(y, inputs=pd.DataFrame(rng.normal(size=(40, 2)), columns=["p", "w"]))
    model = ld.StateSpace(ld.transitions.PLRNN(2, 2), ld.emissions.Identity(2, 2))
    post = ld.fit.teacher_forcing(model, ds, steps=0, training=ld.fit.Training(progress=False))
    turned = ds.isel(unit=[1, 0], input=[1, 0])
    u = pd.DataFrame(rng.normal(size=(5, 2)), columns=["p", "w"])
    doors = {
        "expected": lambda ds, u: post.expected(ds, draws=2, seed=0)["y"],
        "prediction_error": lambda ds, u: ld.diagnostics.prediction_error(post, ds, 2, draws=2),
        "simulate": lambda ds, u: post.simulate(1, 5, inputs=u, seed=0)["y"],
        "forecast": lambda ds, u: post.forecast(5, draws=3, u=u, seed=0)["y"],
    }
    for name, door in doors.items():
        a, b = door(ds, u).values, door(turned, u[["w", "p"]]).values
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_one_name_twice_is_refused():
    with pytest.raises(ld.InputError, match="one name twice"):
        order_of(np.array(["b", "a", "a"]), np.array(["a", "a", "b"]), "y", "unit")


def test_labels_are_inputs_by_name():
    y = xr.DataArray(
        np.zeros((3, 4, 1)),
        dims=("trial", "time", "unit"),
        coords={"condition": ("trial", ["left", "right", "left"]), "speed": ("time", [1, 2, 3, 4])},
    )
    ds = ld.data.as_dataset(y, inputs="condition")
    assert ds["input"].values.tolist() == ["left", "right"]
    assert ds["u"].values[:, 0].tolist() == [[1, 0], [0, 1], [1, 0]]
    np.testing.assert_array_equal(ld.data.as_dataset(y, inputs="speed")["u"][1, :, 0], [1, 2, 3, 4])
    with pytest.raises(ld.InputError, match=r"a label among \['condition', 'speed'\]"):
        ld.data.as_dataset(y, inputs="colour")
    post = ld.fit.em(
        ld.StateSpace(ld.transitions.Linear(1, 2), ld.emissions.Gaussian(1, 1)), ds, steps=1,
        progress=False,
    )  # fmt: skip
    assert post.forecast(2, draws=2, u=np.ones((2, 2)), seed=0)["y"].shape == (2, 3, 2, 1)


def test_nested_empty_sequences_are_refused():
    for given in ((), ((),), [[[]]], ((), ())):
        with pytest.raises(ld.InputError):
            ld.data.as_dataset(given)
