"""The command line: ``latentdyn demo | fit | check | report``, one file for each command."""

from latentdyn.cli.main import main

__all__ = ["main"]


def __dir__() -> list[str]:
    return __all__
