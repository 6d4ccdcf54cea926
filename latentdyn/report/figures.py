"""The pictures of a report."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from latentdyn import plots
from latentdyn.errors import InputError
from latentdyn.posterior import Posterior
from latentdyn.posterior.predict import can_continue
from latentdyn.report.scale import original

__all__ = ["Picture", "pictures"]


@dataclass(frozen=True)
class Picture:
    """A figure with its file name, heading and caption."""

    name: str
    heading: str
    caption: str
    figure: Any

    def png(self) -> bytes:
        """As a PNG file."""
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=150, facecolor="white")
        return file.getvalue()

    def html(self) -> str:
        """As an element of a page, with the picture inside."""
        data = base64.b64encode(self.png()).decode()
        width = round(96 * self.figure.get_figwidth())
        return (
            f'<figure><img alt="{self.heading}" style="max-width: {width}px" '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{self.caption}</figcaption></figure>"
        )


WORDS = {
    "forecast": (
        "Forecast",
        "What the fitted model expects after the end of the data: each future is one draw of "
        "parameters, states and noise.",
    ),
    "rates": (
        "Counts and expected counts",
        "Expected counts are averaged over the posterior, given all the data of the trial.",
    ),
    "latents": (
        "Latent states",
        "Bands show what the data leave open about the states, given the fitted family of "
        "posteriors.",
    ),
    "flow": (
        "Dynamics",
        "One step of the expected dynamics from each point of the plane, the other directions at "
        "their mean.",
    ),
    "loss": ("Training", "A flat end means that the optimisation has settled."),
}
MATRICES = {"transition.W": "Coupling", "transition.A": "Coupling", "emission.C": "Read-out"}


def pictures(posterior: Posterior, fan: xr.Dataset | None, truth: object) -> Iterator[Picture]:
    """All that apply to this posterior: forecast, rates, states, flow, matrices, training.

    Args:
        posterior: what was fitted.
        fan: a forecast to show; None: one is made, where the model allows it.
        truth: data that reach into the forecast; None: the data of the fit.
    """
    data = posterior.data
    fan = _fan(posterior) if fan is None else fan
    if fan is not None:
        past = original(data, data) if truth is None else truth
        yield _picture("forecast", plots.forecast(original(fan, data), past))
    if posterior.fits[posterior.best][1].states is not None:
        yield from _of_states(posterior)
    for name, heading in MATRICES.items():
        template = posterior.model.templates.get(name)
        if template is not None and min(template.shape) > 1:
            caption = "Left the value; right, where the parameter has a posterior, how sure its "
            figure = _figure(plots.matrix(posterior, name))
            yield Picture(name, f"{heading}: {name}", caption + "sign is.", figure)
    if any(h.get("elbo") for h in posterior.histories):
        yield _picture("loss", plots.loss(posterior))


def _of_states(posterior: Posterior) -> Iterator[Picture]:
    if posterior.data["y"].attrs.get("kind") == "count":
        yield _picture("rates", plots.raster_and_rates(posterior))
    yield _picture("latents", plots.latents(posterior))
    if posterior.model.state_dim > 1 and posterior.model.form == "StateSpace":
        dims = (0, 1) if posterior.model.state_dim == 2 else "principal"
        yield _picture("flow", plots.flow_field(posterior, dims))


def _picture(name: str, axes: object) -> Picture:
    return Picture(name, *WORDS[name], _figure(axes))


def _fan(posterior: Posterior) -> xr.Dataset | None:
    if can_continue(posterior.model):
        steps = max(1, min(posterior.batch.steps // 5, 100))
        with suppress(InputError):  # a program that does not go on
            return posterior.forecast(steps, draws=200, seed=0)
    return None


def _figure(axes: Any) -> Any:
    return np.ravel(axes)[0].figure
