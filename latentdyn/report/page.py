"""One self-contained HTML page about a fit."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from latentdyn.posterior import Posterior
from latentdyn.report.figures import Picture, pictures
from latentdyn.report.readings import Reading, readings
from latentdyn.report.sections import sections, what_was_fitted
from latentdyn.report.style import CSS

__all__ = ["page"]


def page(
    posterior: Posterior,
    *,
    forecast: xr.Dataset | None = None,
    truth: object = None,
    about: Mapping[str, Any] | None = None,
    shown: Sequence[Picture] | None = None,
    checks: Sequence[Reading] | None = None,
) -> str:
    """The page as HTML: pictures inside, nothing fetched from elsewhere.

    Args:
        posterior: what a fit returned.
        forecast: draws y (draw, trial, time, unit) to show; by default one is made.
        truth: data that reach into the forecast.
        about: ``title``, ``findings`` (sentences) and ``settings`` (name -> value), all optional.
        shown: pictures, if they are at hand; by default they are drawn.
        checks: diagnostics, if they are at hand; by default they are computed.
    """
    about = dict(about or {})
    drawn = list(pictures(posterior, forecast, truth) if shown is None else shown)
    read = list(readings(posterior) if checks is None else checks)
    title = html.escape(str(about.get("title") or _title(posterior)))
    parts, links = [], []
    for heading, content in sections(posterior, drawn, read, about):
        anchor = re.sub(r"\W+", "-", heading.lower()).strip("-")
        links.append(f'<a href="#{anchor}">{html.escape(heading)}</a>')
        parts.append(f'<section><h2 id="{anchor}">{html.escape(heading)}</h2>{content}</section>')
    return _PAGE.format(
        title=title,
        css=CSS,
        lead=html.escape(what_was_fitted(posterior)),
        links=" ".join(links),
        body="\n".join(parts),
    )


def _title(posterior: Posterior) -> str:
    return str(posterior.data.attrs.get("title", "A fit with latentdyn"))


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
<header><h1>{title}</h1><p class="lead">{lead}</p><nav>{links}</nav></header>
<main>
{body}
</main>
</body>
</html>
"""
