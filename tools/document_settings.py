"""Write docs/settings.md, the list of all settings of a recipe, from `vrdir.training.settings`.

python tools/document_settings.py
"""

from __future__ import annotations

from pathlib import Path

from vrdir.training.fields import described
from vrdir.training.settings import Recipe

# Stages with the settings of `decoder`.
ALIKE = ("branch.", "fusion.", "refine.", "whole.", "haze.")
PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = """# Settings of a recipe

Every setting is a key of the YAML file and a flag of `vrdir train`: `decoder.steps` is
`--decoder-steps` for `train all` and `--steps` for `train decoder`. `branch`, `fusion`, `refine`,
`whole` and `haze` have the same settings as `decoder`. [Training](training.md) shows how to use
them. `python tools/document_settings.py` writes this page.

| Setting | Default | Meaning |
|---|---|---|
"""


def page() -> str:
    """Return the page's text."""
    lines = [
        f"| `{key}` | {f'`{default}`' if default else 'required'} | {description} |\n"
        for key, description, default in described(Recipe)
        if not key.startswith(ALIKE)
    ]
    return HEAD + "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
