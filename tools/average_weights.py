"""Average the weights of two models that have the same config.

    python tools/average_weights.py FIRST SECOND OUT --share 0.6       # 0.4 of FIRST, 0.6 of SECOND

This works where one model was trained from the other: weights between the two then trade the
strengths of both (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022; tried in
research/experiments.md, 26). It does not work for models that were trained apart. Validate the
result.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from vrdir.model.vrdir import VRDIR


def main() -> None:
    """Average, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path, help="model folder")
    parser.add_argument("second", type=Path, help="model folder")
    parser.add_argument("out", type=Path, help="model folder to be written")
    parser.add_argument(
        "--share", type=float, required=True, help="share of the second model, 0 to 1"
    )
    arguments = parser.parse_args()
    if not 0 <= arguments.share <= 1:
        parser.error(f"--share is from 0 to 1, not {arguments.share}")
    models = [VRDIR.from_pretrained(folder) for folder in (arguments.first, arguments.second)]
    if models[0].config != models[1].config:
        parser.error(f"{arguments.first} and {arguments.second} have different configs")
    first, second = (model.state_dict() for model in models)
    models[0].load_state_dict(
        {name: first[name].lerp(second[name], arguments.share) for name in first}
    )
    models[0].save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
