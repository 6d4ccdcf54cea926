import re
from contextlib import contextmanager

import pytest

from latentdyn.errors import InputError

SENTENCE = re.compile(r"^'[\w\.\[\]]+': expected .+, got .+; .+")


@contextmanager
def _refused(argument=None, match=None):
    with pytest.raises(InputError, match=match) as caught:
        yield
    message = str(caught.value)
    assert SENTENCE.match(message), message
    assert "\n" not in message
    if argument is not None:
        assert caught.value.argument == argument, message


@pytest.fixture(scope="session")
def refused():
    """Context manager: an InputError about ``argument`` whose message has all four parts."""
    return _refused
