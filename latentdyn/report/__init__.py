"""Reports: a fit on one HTML page, with diagnostics in plain words."""

from latentdyn.report.page import page
from latentdyn.report.readings import Reading, readings

__all__ = ["Reading", "page", "readings"]


def __dir__() -> list[str]:
    return __all__
