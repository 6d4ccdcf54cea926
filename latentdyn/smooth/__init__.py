"""States given parameters: exact, approximate and particle smoothers of the same program."""

__all__: list[str] = []
