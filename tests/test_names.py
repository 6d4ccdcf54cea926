"""What completion offers is what users call: no modules that only have the names of functions."""

from __future__ import annotations

import importlib
import pkgutil
import types

import pytest

import latentdyn

# shelves inside a room: what they hold for others is offered by the room
SHELVES = ("latentdyn.fit.", "latentdyn.smooth.")
ROOMS = ["latentdyn"] + [
    m.name
    for m in pkgutil.walk_packages(latentdyn.__path__, "latentdyn.")
    if m.ispkg and not m.name.startswith(SHELVES)
]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_offers_its_own_names(room):
    module = importlib.import_module(room)
    assert sorted(dir(module)) == sorted(module.__all__)
    for name in module.__all__:
        found = getattr(module, name)
        if isinstance(found, types.ModuleType):
            assert sorted(dir(found)) == sorted(found.__all__)
