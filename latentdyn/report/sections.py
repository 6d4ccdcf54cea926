"""The sections of a report, each a heading and some HTML."""

from __future__ import annotations

import html
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from latentdyn.posterior import Posterior
from latentdyn.report.figures import Picture
from latentdyn.report.readings import Reading
from latentdyn.report.tables import pairs, parameter_summary, table

__all__ = ["sections", "what_was_fitted"]

PACKAGES = ("latentdyn", "torch", "pyro-ppl", "arviz-base", "arviz-stats", "xarray", "numpy")
MARKS = {"good": "✓", "care": "•", "poor": "!", "broken": "✗"}


def sections(
    posterior: Posterior, pictures: list[Picture], readings: list[Reading], about: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Heading and content of each section."""
    findings = about.get("findings", [])
    if findings:
        yield "In short", "<ul>" + "".join(f"<li>{html.escape(f)}</li>" for f in findings) + "</ul>"
    yield "Can it be trusted?", _checks(readings)
    first = [p for p in pictures if p.name in ("forecast", "rates")]
    for picture in first:
        yield picture.heading, picture.html()
    yield "Data", _data(posterior)
    for picture in pictures:
        if picture not in first:
            yield picture.heading, picture.html()
    yield "Parameters", _parameters(posterior)
    yield "Settings and versions", pairs(dict(about.get("settings", {}))) + pairs(_versions())


def what_was_fitted(posterior: Posterior) -> str:
    """One sentence about model, data and method."""
    model, batch = posterior.model, posterior.batch
    core = model.core
    prior = f"prior {type(model.prior).__name__}" if model.prior.random else "no prior"
    method = posterior.attrs.get("inference_method", "").upper()
    kind = type(core).__name__
    if core.form == "StateSpace":
        kind = f"{type(core.transition).__name__} dynamics with {core.state_dim} states, "
        kind += f"{type(core.emission).__name__} observations"
    return (
        f"{kind}, {prior}; fitted by {method} to {_number(batch.trials, 'trial')} of "
        f"{_number(batch.steps, 'step')} and {_number(batch.y.shape[-1], 'unit')}."
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _checks(readings: list[Reading]) -> str:
    rows = [(MARKS[r.verdict], r.name, r.value, r.text) for r in readings]
    return table(("", "check", "value", "what it says"), rows, [r.verdict for r in readings])


def _data(posterior: Posterior) -> str:
    ds, y = posterior.data, posterior.data["y"]
    time = ds["time"].values
    observed = int(y.notnull().sum())
    entries = int(posterior.batch.length.sum()) * y.sizes["unit"]  # within trials
    held = 0 if posterior.held_out is None else int(posterior.held_out.sum())
    keys = ("title", "source", "citation", "licence", "license")
    described = {k: ds.attrs[k] for k in keys if k in ds.attrs}
    return pairs(
        described
        | {
            "trials, steps, units": " × ".join(str(n) for n in y.shape),
            "time": f"{_clock(time[0])} to {_clock(time[-1])} {ds['time'].attrs.get('units', '')}",
            "kind of observation": y.attrs.get("kind"),
            "units of measurement": y.attrs.get("original_units") or y.attrs.get("units"),
            "transformed": y.attrs.get("transform"),
            "missing": f"{100 * (1 - observed / entries):.1f}% of the entries",
            "held out": f"{held} of {observed} observed entries",
        }
    )


def _clock(time: Any) -> str:
    return f"{time:.6g}" if np.issubdtype(time.dtype, np.number) else str(time)[:19]


def _parameters(posterior: Posterior) -> str:
    frame, left_out = parameter_summary(posterior)
    if frame is None:
        return "<p>The model has no prior: its parameters are point estimates.</p>"
    rows = [(name, *(float(x) for x in row)) for name, *row in frame.itertuples()]
    note = f"<p>{left_out} more rows are in posterior.nc.</p>" if left_out else ""
    head = ["parameter", *map(str, frame.columns)]
    return f"<details open>{'<summary>ArviZ summary</summary>'}{table(head, rows)}</details>{note}"


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
