"""Evaluation: how well images are restored, and what restoring does to recognisers.

from vrdir.evaluation import Condition, find_task, function_for_images
task = find_task("classification")
result = task.evaluate(
task.read(Path("photos")),
task.load("net.onnx"),
[Condition("haze:severity=3")],
{"mine": function_for_images(dehaze)},
)
"""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.evaluation.metric import Metric
    from vrdir.evaluation.recognition.conditions import AsTaken, Condition
    from vrdir.evaluation.recognition.recognisers.contracts import Classifier, Detector, Embedder
    from vrdir.evaluation.recognition.registry import find_task, task_names
    from vrdir.evaluation.recognition.restorers import (
        RestoredFolders,
        function_for_images,
        load_restorer,
        network_for_images,
    )
    from vrdir.evaluation.recognition.results import RecognitionResult
    from vrdir.evaluation.recognition.task import RecognitionTask
    from vrdir.evaluation.recognition.tasks.classification import Classification
    from vrdir.evaluation.recognition.tasks.detection import Detection
    from vrdir.evaluation.recognition.tasks.reid import Reidentification
    from vrdir.evaluation.recognition.verdict import verdict
    from vrdir.evaluation.restoration.metrics import measure, psnr_rgb, ssim_rgb
    from vrdir.evaluation.restoration.protocol import measure_pairs
    from vrdir.evaluation.restoration.restorers import (
        folder_for_pairs,
        function_for_pairs,
        network_for_pairs,
    )

__all__ = [
    "AsTaken",
    "Classification",
    "Classifier",
    "Condition",
    "Detection",
    "Detector",
    "Embedder",
    "Metric",
    "RecognitionResult",
    "RecognitionTask",
    "Reidentification",
    "RestoredFolders",
    "find_task",
    "folder_for_pairs",
    "function_for_images",
    "function_for_pairs",
    "load_restorer",
    "measure",
    "measure_pairs",
    "network_for_images",
    "network_for_pairs",
    "psnr_rgb",
    "ssim_rgb",
    "task_names",
    "verdict",
]

_HOMES = {
    "AsTaken": "vrdir.evaluation.recognition.conditions",
    "Classification": "vrdir.evaluation.recognition.tasks.classification",
    "Classifier": "vrdir.evaluation.recognition.recognisers.contracts",
    "Condition": "vrdir.evaluation.recognition.conditions",
    "Detection": "vrdir.evaluation.recognition.tasks.detection",
    "Detector": "vrdir.evaluation.recognition.recognisers.contracts",
    "Embedder": "vrdir.evaluation.recognition.recognisers.contracts",
    "Metric": "vrdir.evaluation.metric",
    "RecognitionResult": "vrdir.evaluation.recognition.results",
    "RecognitionTask": "vrdir.evaluation.recognition.task",
    "Reidentification": "vrdir.evaluation.recognition.tasks.reid",
    "RestoredFolders": "vrdir.evaluation.recognition.restorers",
    "find_task": "vrdir.evaluation.recognition.registry",
    "folder_for_pairs": "vrdir.evaluation.restoration.restorers",
    "function_for_images": "vrdir.evaluation.recognition.restorers",
    "function_for_pairs": "vrdir.evaluation.restoration.restorers",
    "load_restorer": "vrdir.evaluation.recognition.restorers",
    "measure": "vrdir.evaluation.restoration.metrics",
    "measure_pairs": "vrdir.evaluation.restoration.protocol",
    "network_for_images": "vrdir.evaluation.recognition.restorers",
    "network_for_pairs": "vrdir.evaluation.restoration.restorers",
    "psnr_rgb": "vrdir.evaluation.restoration.metrics",
    "ssim_rgb": "vrdir.evaluation.restoration.metrics",
    "task_names": "vrdir.evaluation.recognition.registry",
    "verdict": "vrdir.evaluation.recognition.verdict",
}

__getattr__, __dir__ = offer(__name__, _HOMES)
