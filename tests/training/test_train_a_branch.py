"""The example that trains a branch for a new degradation."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_example_trains_a_branch_for_a_new_degradation(tmp_path: Path) -> None:
    script = ROOT / "examples" / "train_a_branch.py"
    command = [sys.executable, str(script), "--steps", "2", "--output", str(tmp_path / "run")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert re.search(r"dead pixels: \d+\.\d dB as degraded, \d+\.\d dB restored", result.stdout)
    stages = {path.name for path in (tmp_path / "run" / "weights").iterdir()}
    assert {"decoder", "branch-dead_pixels", "fusion", "refine"} <= stages
