"""Reports: one page with nothing to fetch, readings in words, units there and back."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import xarray as xr

import latentdyn as ld
from latentdyn.errors import InputError
from latentdyn.report import page, readings
from latentdyn.report.readings import BROKEN
from latentdyn.report.scale import comfortable, original, standardise
from latentdyn.report.sections import _data
from latentdyn.report.tables import parameter_summary
from tests import fitted

VOID = {"meta", "img"}


class Tags(HTMLParser):
    """Checks that tags close in order, and collects headings and sources."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.headings = [], [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [v for k, v in attrs if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture(scope="module")
def html():
    about = {"title": "A <title>", "findings": ["It & that"], "settings": {"steps": 60}}
    return page(fitted.counts(), about=about)


def test_the_page_is_whole_and_fetches_nothing(html):
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    assert all(s.startswith(("data:image/png;base64,", "#")) for s in tags.sources)
    assert "url(" not in html
    assert "@import" not in html
    assert 'name="viewport"' in html
    assert "@media print" in html


def test_the_page_has_all_sections_and_escapes_what_it_is_given(html):
    tags = Tags()
    tags.feed(html)
    wanted = [
        "In short",
        "Can it be trusted?",
        "Forecast",
        "Counts and expected counts",
        "Data",
        "Latent states",
        "Dynamics",
        "Coupling: transition.W",
        "Read-out: emission.C",
        "Training",
        "Parameters",
        "Settings and versions",
    ]
    assert tags.headings == wanted
    assert "A &lt;title&gt;" in html
    assert "It &amp; that" in html
    assert len(re.findall("<img ", html)) == 7


def test_a_model_without_prior_or_counts_has_a_shorter_page():
    html = page(fitted.real())
    assert "point estimates" in html
    assert "Counts and expected" not in html
    assert "year" in html


def test_readings_name_every_diagnostic():
    found = {r.name: r for r in readings(fitted.counts())}
    assert {
        "finite",
        "k-hat of the parameters",
        "k-hat of the states",
        "held-out log score",
        "bits per spike",
        "gap between restarts",
    } <= set(found)
    assert {r.verdict for r in found.values()} <= {"good", "care", "poor"}
    assert "held-out R²" in {r.name for r in readings(fitted.real())}


def test_a_parameter_that_is_not_finite_is_broken():
    post = fitted.real()
    program, guide = post.fits[0]
    broken = copy.deepcopy(program)
    with torch.no_grad():
        broken.transition.A[0, 0] = torch.nan
    found = readings(post.replace(fits=[(broken, guide)]))
    assert [r.verdict for r in found] == [BROKEN]
    assert "transition.A" in found[0].text


def test_parameter_summary_is_that_of_arviz():
    frame, left_out = parameter_summary(fitted.counts())
    assert left_out == 0
    assert len(frame) == 3 + 9
    assert parameter_summary(fitted.counts(), most=5)[1] == 7
    assert parameter_summary(fitted.real()) == (None, 0)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_standardised_data_have_unit_spread_and_go_back(power):
    rng = np.random.default_rng(0)
    ds = ld.data.as_dataset(rng.gamma(3, 20, (2, 50, 3)))
    ds["y"].attrs["units"] = "mV"
    out = standardise(ds, power)
    np.testing.assert_allclose(out["y"].mean(("trial", "time")), 0, atol=1e-12)
    np.testing.assert_allclose(out["y"].std(("trial", "time")), 1)
    back = original(out, out)
    np.testing.assert_allclose(back["y"], ds["y"])
    assert back["y"].attrs["units"] == "mV"
    assert comfortable(out)
    assert not comfortable(ds)


def test_what_was_not_standardised_stays():
    data = fitted.real().data
    xr.testing.assert_identical(original(data, data), data)
    with pytest.raises(InputError, match="power"):
        standardise(data, power=2)


def test_steps_past_the_end_of_a_trial_are_not_missing():
    y = [np.random.default_rng(n).normal(size=(n, 2)) for n in (12, 7)]
    y[0][3] = np.nan
    model = ld.StateSpace(ld.transitions.Linear(1), ld.emissions.Gaussian(1, 2))
    post = ld.fit.em(model, y, steps=1, progress=False)
    assert "5.3% of the entries" in _data(post)  # one of nineteen steps
