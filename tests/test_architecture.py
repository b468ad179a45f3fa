"""A module imports only from layers below its own, or from earlier in its own layer's list: so there is no circle."""

import ast
from pathlib import Path

import vrdir

SOURCE = Path(vrdir.__file__).parent

LAYERS = [
    [
        "forks",
        "spelling",
        "image_files",
        "text_files",
        "images",
        "folders",
        "pictures",
        "video",
        "weights",
        "yaml_files",
    ],
    ["model", "degradations"],
    ["data", "inference"],
    ["evaluation"],
    ["training"],
    ["cli", "__main__"],
]
# Rooms whose modules are listed from the bottom up.
INSIDE = {
    "image_files": [
        "whole_files", "regular_files", "memory", "xmp", "metadata", "sixteen_bits", "tiff", "formats", "soundness", "reading", "writing",
        "reducing",
    ],
    "model": [
        "loading", "global_statistics", "blocks", "intrinsic_extractor", "degradation_normalization", "fourier_modulation",
        "semantics_enhancement", "semantics_decoder", "global_context", "control", "vrdir",
    ],
    "degradations": [
        "draws", "depth", "overlays",
        "srgb", "scatter", "jpeg", "photographed_fog",
        "noise", "light", "haze", "rain", "snow", "blur", "resolution", "registry", "mixture",
        "degrade",
    ],
    "data": ["pairs", "public_datasets", "image_cache", "items", "augmentation", "training_set", "validation_set"],
    "inference": [
        "stream", "manifest", "room", "changes", "diagnosis", "files", "folder_report",
        "export_graph", "export_nodes", "onnx_values", "exported_model", "export",
        "borders", "bands", "restorer", "golden",
        "normalisation", "front_end", "connectors", "recognition_frontend", "transform", "albumentations",
    ],
    "evaluation": [
        "restoration_metrics", "restoration", "charts", "report", "restoration_report", "resampling", "variants", "recognition",
        "recognisers", "recogniser_files", "recogniser_packages", "recogniser_loading", "labels", "detection_labels", "average_precision",
        "classification", "detection", "reidentification", "recognition_verdict", "recognition_report",
    ],
    "training": ["losses", "checkpoints", "settings", "onnx_network", "recognition", "stages", "logs", "record", "trainer", "run"],
    "video": ["formats", "timing", "reading", "writing"],
    "weights": ["bundled"],
    "cli": [
        "console", "pipes", "restore", "degrade", "pairs", "train", "recognition_inputs", "recognition", "evaluate", "export", "weights",
        "info", "app",
    ],
}  # fmt: skip


def imports_of(path: Path) -> set[str]:
    """The vrdir modules a file imports, "model.blocks" style."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            from_home = node.module == "vrdir" and any(
                alias.name != "__version__" for alias in node.names
            )
            assert not from_home, f"{path} imports from the package, not from the module"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vrdir."):
            found.add(str(node.module).removeprefix("vrdir."))
        if isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("vrdir.")
                for alias in node.names
                if alias.name.startswith("vrdir.")
            }
    return found


def layer_of(module: str) -> int:
    room = module.split(".")[0]
    return next(i for i, layer in enumerate(LAYERS) if room in layer)


def test_every_module_has_its_place() -> None:
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if parts == ("__init__",) or parts[-1] == "__init__":
            continue
        layer_of(parts[0])
        if len(parts) == 2:
            assert parts[1] in INSIDE[parts[0]], f"{path} stands in no list"


def test_imports_point_downwards() -> None:
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if parts[-1] == "__init__":
            continue
        module = ".".join(parts)
        for imported in imports_of(path):
            if layer_of(imported) != layer_of(module):
                assert layer_of(imported) < layer_of(module), (
                    f"{module} imports {imported}, which is above it"
                )
            elif parts[0] != imported.split(".")[0]:
                rooms = LAYERS[layer_of(module)]
                assert rooms.index(imported.split(".")[0]) < rooms.index(parts[0]), (
                    f"{module} imports {imported} beside it"
                )
            else:
                order = INSIDE[parts[0]]
                assert order.index(imported.split(".")[1]) < order.index(parts[1]), (
                    f"{module} imports {imported}, which comes after it"
                )


def test_packages_say_nothing_of_their_own() -> None:
    for path in SOURCE.rglob("__init__.py"):
        if path.parent != SOURCE:
            assert path.read_text() == ""
