r"""Add trained weights to the package: float16 file, config, golden outputs and manifest entry.

    python tools/release_weights.py RUN/weights/refine small --recipe small --commit SHA \
        --figures figures.json --description "..." --training-data "..." \
        --command "vrdir train all ..." "vrdir train refine ..."

The model card (src/vrdir/weights/NAME/README.md) is written by hand.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from vrdir.atomic import write_whole
from vrdir.model.loading import CONFIG_FILE, WEIGHTS_FILE
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.golden import GOLDEN_FILE, write_golden
from vrdir.weights.bundled import FOLDER, MANIFEST, bundled_weights, sha256

SOURCE = (
    "trained by vrdir itself; the extractor derives from EfficientNet-Lite0 (Google, Apache-2.0)"
)


def main() -> None:
    """Write the weights' folder and the manifest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trained", type=Path, help="model folder that training wrote")
    parser.add_argument("name", help="name of the bundled weights")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--commit", required=True, help="commit of the code that trained them")
    parser.add_argument("--figures", type=Path, required=True, help="JSON of measured figures")
    parser.add_argument("--description", required=True)
    parser.add_argument("--training-data", required=True)
    parser.add_argument(
        "--command", required=True, nargs="+", help="the commands that were run, in order"
    )
    arguments = parser.parse_args()
    folder = FOLDER / arguments.name
    try:  # everything that can fail comes before the first file is written
        figures, model = (
            json.loads(arguments.figures.read_text()),
            VRDIR.from_pretrained(arguments.trained),
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
    model.save_pretrained(folder, half=True)
    write_golden(arguments.name)
    entries = bundled_weights() | {
        arguments.name: {
            "description": arguments.description,
            "source": SOURCE,
            "licence": "Apache-2.0",
            "training_data": arguments.training_data,
            "recipe": arguments.recipe,
            "commands": arguments.command,
            "commit": arguments.commit,
            "parameters": sum(p.numel() for p in model.parameters()),
            "bytes": (folder / WEIGHTS_FILE).stat().st_size,
            "figures": figures,
            "sha256": {
                name: sha256(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE, GOLDEN_FILE)
            },
        }
    }
    write_whole((json.dumps({"weights": entries}, indent=1) + "\n").encode(), MANIFEST)


if __name__ == "__main__":
    main()
