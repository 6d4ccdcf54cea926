"""csv files as people have them."""

import numpy as np
import pandas as pd
import pytest

import latentdyn as ld
from latentdyn.cli import main
from latentdyn.cli.read import read

X = np.random.default_rng(0).normal(size=(30, 2)).round(4)
DAYS = pd.date_range("2024-01-01", periods=30)
TABLE = pd.DataFrame(X, columns=["left", "right"])
LONG = pd.DataFrame({"who": np.repeat(["b", "a"], 15), "left": X[:, 0]})


def dated(form, separator=",", comma=False):
    rows = [
        separator.join([d.strftime(form), *(f"{v:.4f}" for v in x)])
        for d, x in zip(DAYS, X, strict=True)
    ]
    text = "\n".join([separator.join(["date", "left", "right"]), *rows])
    return text.replace(".", ",") if comma else text


FILES = {
    "plain": (TABLE.to_csv(index=False), {}),
    "row numbers": (TABLE.to_csv(), {}),
    "dates without a name": (TABLE.set_index(DAYS).to_csv(), {}),
    "iso dates": (dated("%Y-%m-%d"), {}),
    "dotted dates": (dated("%d.%m.%Y"), {}),
    "slashes that tell": (dated("%m/%d/%Y"), {}),
    "semicolons, decimal commas": (dated("%Y-%m-%d", ";", comma=True), {}),
    "tabs": (TABLE.to_csv(index=False, sep="\t"), {}),
    "chosen columns": (TABLE.assign(note="x").to_csv(index=False), {"columns": ("left", "right")}),
    "chosen clock": (
        TABLE.assign(when=DAYS).to_csv(index=False),
        {"time": "when"},
    ),
    "a mark of byte order": ("\ufeff" + dated("%Y-%m-%d"), {}),
}


@pytest.mark.parametrize(("text", "how"), FILES.values(), ids=FILES.keys())
def test_tables_are_read(text, how, tmp_path):
    (tmp_path / "signal.csv").write_text(text, encoding="utf-8")
    ds = read(str(tmp_path / "signal.csv"), **how)
    np.testing.assert_array_equal(ds["y"].values[0], X)
    assert ds["unit"].values.tolist() == ["left", "right"]
    if "date" in text[:40] or ds["time"].dtype.kind == "M":
        assert list(ds["time"].values) == list(DAYS.to_numpy())


@pytest.mark.parametrize("head", ["left\n", ""])
def test_one_column_with_and_without_a_header(head, tmp_path):
    text = head + "\n".join(map(str, X[:, 0]))
    (tmp_path / "one.csv").write_text(text)
    np.testing.assert_array_equal(read(str(tmp_path / "one.csv"))["y"].values[0, :, 0], X[:, 0])


def test_gaps_are_missing_where_the_step_is_said(tmp_path):
    TABLE.set_index(DAYS).drop(DAYS[[3, 4, 9]]).to_csv(tmp_path / "gaps.csv")
    ds = read(str(tmp_path / "gaps.csv"), freq="D")
    assert np.flatnonzero(np.isnan(ds["y"].values[0, :, 0])).tolist() == [3, 4, 9]


def test_long_tables_have_trials(tmp_path):
    LONG.to_csv(tmp_path / "long.csv", index=False)
    ds = read(str(tmp_path / "long.csv"), trial="who")
    assert ds["trial"].values.tolist() == ["b", "a"]
    np.testing.assert_array_equal(ds["y"].values[..., 0], X[:, 0].reshape(2, 15))


BAD = {
    "empty": (b"", [], "'data'"),
    "words": (b"a,b\nx,y\nz,w\n", [], "column 'a'"),
    "ragged": (b"a,b\n1,2\n3,4,5,6\n", [], "'data'"),
    "binary": (bytes(range(256)) * 4, [], "'data'"),
    "ambiguous dates": (b"date,a\n01/02/2024,1\n02/02/2024,3\n03/02/2024,2\n", [], "--dayfirst"),
    "no dates": (b"date,a\nfoo,1\nbar,3\n", ["--time", "date"], "'data'"),
    "no such column": (b"a,b\n1,2\n3,4\n", ["--columns", "c"], "'--columns'"),
    "no such clock": (b"a,b\n1,2\n3,4\n", ["--time", "c"], "'--time'"),
    "odd step": (b"date,a\n2024-01-01,1\n2024-01-02,3\n", ["--freq", "foo"], "'--freq'"),
    "clock of numbers": (b"a\n1\n3\n", ["--freq", "D"], "'--freq'"),
}


@pytest.mark.parametrize(("raw", "args", "message"), BAD.values(), ids=BAD.keys())
def test_bad_tables_are_one_line(raw, args, message, tmp_path, capsys):
    (tmp_path / "bad.csv").write_bytes(raw)
    assert main(["fit", str(tmp_path / "bad.csv"), *args, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_places_are_checked_before_the_fit(tmp_path, capsys):
    TABLE.to_csv(tmp_path / "signal.csv")
    args = ["fit", str(tmp_path / "signal.csv"), "--model", "linear", "--state-dim", "1"]
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    for out, message in ((full, "--overwrite"), (full / "thesis.txt", "choose another name")):
        assert main([*args, "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
    quick = ["--steps", "3", "--draws", "5", "--overwrite"]
    assert main([*args, "--out", str(full), *quick]) == 0
    assert (full / "thesis.txt").read_text() == "mine"
    assert ld.load(full).data["unit"].values.tolist() == ["left", "right"]
