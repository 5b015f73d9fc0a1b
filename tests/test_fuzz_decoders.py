"""Some seconds of `make fuzz`, from examples of every kind of body."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from as_user import ROOT, plain_environment

RUNS = 15_000


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
def test_decoders_end_with_a_value_or_a_400(tmp_path: Path) -> None:
    """Whatever coverage-guided mutation makes of the examples, no decoder raises what would be a 500."""
    options = [f"-runs={RUNS}", "-max_total_time=30", "-seed=1"]
    told = subprocess.run(
        [sys.executable, "tests/fuzz_decoders.py", str(tmp_path / "corpus"), *options, f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT,
        env=plain_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-4000:]
    assert "Done " in told.stderr
