"""Two gloo processes take the same step as one."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest
import torch

ROOT = pathlib.Path(__file__).parents[2]


def launch(world: int, size: str) -> dict[str, list[float]]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    workers = []
    for rank in range(world):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        if world > 1:
            env |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        command = [sys.executable, "-m", "tests.fit.distributed_worker", size]
        workers.append(
            subprocess.Popen(
                command,
                env=env,
                cwd=ROOT,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    outputs = [w.communicate(timeout=200) for w in workers]
    assert all(w.returncode == 0 for w in workers), outputs
    line = next(x for out, _ in outputs for x in out.split("\n") if x.startswith("GRADIENTS"))
    return json.loads(line.removeprefix("GRADIENTS"))


@pytest.mark.parametrize("size", [pytest.param("all", marks=pytest.mark.slow), "5"])
def test_two_processes_give_the_gradients_of_one(size):
    """float64 sums in another order: rtol 1e-10."""
    one, two = launch(1, size), launch(2, size)
    assert set(one) == set(two)
    assert len(one) > 5
    for name, gradient in one.items():
        torch.testing.assert_close(
            torch.tensor(two[name]), torch.tensor(gradient), rtol=1e-10, atol=1e-12
        )
