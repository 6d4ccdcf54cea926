"""The house: imports point only to rooms above, and each library is known only where it belongs."""

from __future__ import annotations

import ast
import os
import pathlib
import subprocess
import sys
from functools import cache

ROOT = pathlib.Path(__file__).parents[1] / "latentdyn"
ROOMS = [
    "errors",
    "values",
    "smoother",
    "rng",
    "config",
    "data",
    "nn",
    "kernels",
    "distributions",
    "bindable",
    "conditional",
    "per_session",
    "initials",
    "transitions",
    "emissions",
    "encoders",
    "priors",
    "programs",
    "smooth",
    "guide",
    "posterior",
    "fit",
    "diagnostics",
    "plots",
    "report",
    "cli",
    "__main__",
]
KNOWN_IN = {
    "xarray": {"data", "posterior", "diagnostics", "plots", "report", "cli"},
    "pandas": {"data", "posterior", "report", "cli"},
    "arviz": {"posterior", "diagnostics", "plots", "report", "cli"},
    "arviz_base": {"posterior", "diagnostics", "plots", "report", "cli"},
    "arviz_stats": {"diagnostics", "report", "cli"},
    "matplotlib": {"plots"},
    "accelerate": {"fit"},
    "pickle": set(),
}
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: pathlib.Path) -> set[str]:
    """Modules that are imported, those of a package by their own name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for name in (f"{node.module}.{a.name}" for a in node.names):
                found.add(name if name in modules() else node.module)
    return found


@cache
def modules() -> dict[str, pathlib.Path]:
    """Files by the name of their module."""
    names = (".".join((ROOT.name, *p.relative_to(ROOT).with_suffix("").parts)) for p in FILES)
    return dict(zip((n.removesuffix(".__init__") for n in names), FILES, strict=True))


def test_imports_point_upwards_only_and_libraries_are_known_where_they_belong():
    wrong = []
    for path in FILES:
        here = room_of(path)
        for module in imports(path):
            first, *rest = module.split(".")
            if first == ROOT.name and rest and ROOMS.index(rest[0]) > ROOMS.index(here):
                wrong.append(f"{path} imports {module}, a room below its own")
            if here not in KNOWN_IN.get(first, {here}):
                wrong.append(f"{path} imports {module}")
    assert not wrong


def test_no_file_depends_on_itself_in_a_circle():
    """Also inside rooms, and through imports inside functions."""
    known = modules()
    graph = {n: {m for m in imports(p) if m in known and m != n} for n, p in known.items()}
    while ends := [name for name, needs in graph.items() if not needs]:
        graph = {n: needs - {*ends} for n, needs in graph.items() if n not in ends}
    assert not graph


def test_files_and_functions_stay_small():
    wrong = []
    for path in FILES:
        text = path.read_text()
        if text.count("\n") > 350:
            wrong.append(f"{path} has {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                size = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if size > 40:
                    wrong.append(f"{path}:{node.lineno} {node.name} has {size} lines")
    assert not wrong


def test_every_room_is_listed():
    assert {room_of(p) for p in FILES} == set(ROOMS)


SCRIPT = """
import resource, sys
def cpu():
    use = resource.getrusage(resource.RUSAGE_SELF)
    return use.ru_utime + use.ru_stime
import torch
state = torch.get_rng_state()
dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
import latentdyn
heavy = [m for m in ("arviz", "arviz_base", "arviz_stats", "arviz_plots", "matplotlib",
                     "accelerate", "pynapple") if m in sys.modules]
assert not heavy, heavy
assert torch.equal(torch.get_rng_state(), state)
assert torch.get_default_dtype() == dtype and torch.get_num_threads() == threads
import pyro
assert pyro.settings.get("module_local_params") is False
assert len(pyro.get_param_store()) == 0
print(cpu())
"""


LIBRARIES = """
import resource
import pandas, pyro, scipy.linalg, torch, xarray
use = resource.getrusage(resource.RUSAGE_SELF)
print(use.ru_utime + use.ru_stime)
"""


def seconds(script: str) -> float:
    """CPU time of an import, without a warning."""
    command = [sys.executable, "-W", "error", "-c", script]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return float(done.stdout)


def test_import_is_quick_quiet_and_without_side_effects():
    """3 s of CPU, or on slow machines half as much again as the libraries alone; best of three."""
    found = [(seconds(SCRIPT), seconds(LIBRARIES)) for _ in range(3)]
    own, libraries = (min(column) for column in zip(*found, strict=True))
    assert own < max(3.0, 1.5 * libraries)
