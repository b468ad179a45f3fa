"""Measure the time of a run over many files before the first is restored: list, sort, check.

python benchmarks/plan_files.py --files 100000
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from vrdir.batch import plan_files


def main() -> None:
    """Plan a run over empty files, and print time and memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--folders", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "in"
        for i in range(arguments.folders):
            (root / str(i)).mkdir(parents=True)
        for i in range(arguments.files):
            (root / str(i % arguments.folders) / f"{i}.png").touch()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        jobs = plan_files([root], Path(name) / "out")
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    print(
        f"{len(jobs)} files planned in {wall:.2f} s ({cpu:.2f} s of a core), "
        f"{memory / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    main()
