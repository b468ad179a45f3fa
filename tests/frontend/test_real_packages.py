"""The connectors on tiny real models of other packages, with random weights.

Tests are skipped where a package is not installed.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.conftest import IDENTITY_ONNX
from tests.frontend.optional import import_or_skip
from torch.utils.data import Dataset, IterableDataset

import vrdir
from vrdir.frontend import Normalisation, find_normalisation
from vrdir.model.vrdir import VRDIR

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_onnx_runtime(tiny: VRDIR, photo_batch: torch.Tensor) -> None:
    plain = import_or_skip("onnxruntime").InferenceSession(
        IDENTITY_ONNX, providers=["CPUExecutionProvider"]
    )
    session = vrdir.restore_before(plain, tiny, range=255)
    (seen,) = session.run(["seen"], {"image": photo_batch.numpy() * 255})
    np.testing.assert_allclose(seen, tiny(photo_batch).detach().numpy() * 255, atol=1e-2)
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_onnx_runtime_values_and_bindings(tiny: VRDIR, photo_batch: torch.Tensor) -> None:
    runtime = import_or_skip("onnxruntime")
    plain = runtime.InferenceSession(IDENTITY_ONNX, providers=["CPUExecutionProvider"])
    session, array = vrdir.restore_before(plain, tiny, range=1), photo_batch.numpy()
    (expected,) = session.run(["seen"], {"image": array})
    value = runtime.OrtValue.ortvalue_from_numpy(array)
    (seen,) = session.run(["seen"], {"image": value})
    np.testing.assert_array_equal(seen, expected)
    (seen,) = session.run_with_ort_values(["seen"], {"image": value})
    np.testing.assert_array_equal(seen.numpy(), expected)
    image: Any
    for bind, image in (("bind_cpu_input", array.copy()), ("bind_ortvalue_input", value)):
        binding = session.io_binding()
        getattr(binding, bind)("image", image)
        binding.bind_output("seen")
        session.run_with_iobinding(binding)
        np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], expected)
        if bind == "bind_cpu_input":
            image[:] = image[::-1]  # the bound array may change between runs
        else:
            image.update_inplace(np.ascontiguousarray(array[::-1]))
        session.run_with_iobinding(binding)
        np.testing.assert_allclose(binding.copy_outputs_to_cpu()[0], expected[::-1], atol=1e-6)
        binding.clear_binding_inputs()
        with pytest.raises(
            ValueError,
            match="the image 'image' is not bound; use bind_cpu_input or bind_ortvalue_input",
        ):
            session.run_with_iobinding(binding)
    with pytest.raises(ValueError, match="made by the session itself would bypass"):
        session.run_with_iobinding(plain.io_binding())
    with pytest.raises(
        ValueError, match="cannot be restored when it is bound by its memory address"
    ):
        binding.bind_input("image", "cpu", 0, np.float32, array.shape, array.ctypes.data)


class Photos(Dataset[Any]):
    """A data set with a length that never raises IndexError."""

    def __init__(self, photo: Image.Image) -> None:
        self.photo = photo

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return self.photo


class PhotoStream(IterableDataset[Any]):
    """A data set that can only be iterated."""

    def __init__(self, photo: Image.Image) -> None:
        self.photo = photo

    def __iter__(self) -> Any:
        return iter([self.photo] * 3)


def test_transformers(tiny: VRDIR, photo: Image.Image, tmp_path: Path) -> None:
    hf: Any = import_or_skip("transformers")
    restore = vrdir.Restore(tiny, device="cpu")
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "patch_size": 8,
    }
    model = hf.ViTForImageClassification(hf.ViTConfig(image_size=32, num_labels=4, **small)).eval()
    processor = hf.ViTImageProcessor(size={"height": 32, "width": 32})

    plain = hf.pipeline("image-classification", model=model, image_processor=processor)
    pipeline = vrdir.restore_before(plain, tiny, device="cpu")
    photo.save(tmp_path / "photo.png")
    expected = plain(restore(photo))
    assert expected != plain(photo)
    assert pipeline(photo) == pipeline(str(tmp_path / "photo.png")) == expected
    assert pipeline([photo, photo]) == [expected] * 2
    assert list(pipeline(image for image in [photo])) == [expected]
    assert list(pipeline(inputs=(image for image in [photo]))) == [expected]
    assert pipeline(inputs=[photo]) == [expected]
    for images in (
        Photos(photo),
        PhotoStream(photo),
        hf.pipelines.pt_utils.KeyDataset([{"image": photo}] * 3, "image"),
    ):
        assert isinstance(images, PhotoStream) or len(pipeline(images)) == 3
        for answers in (list(pipeline(images)), list(pipeline(inputs=images, batch_size=2))):
            scores = [[one["score"] for one in answer] for answer in (*answers, expected)]
            assert len(scores) == 4
            # In a batch the last digit may differ.
            np.testing.assert_allclose(scores, scores[-1:] * 4, atol=1e-6)

    fronted = vrdir.restore_before(model, tiny, preprocessing=processor)
    assert fronted.front_end.normalisation == Normalisation((0.5,) * 3, (0.5,) * 3)
    batch = processor(images=[photo, photo], return_tensors="pt")
    by_hand = tiny(batch["pixel_values"] * 0.5 + 0.5) * 2 - 1
    torch.testing.assert_close(fronted(**batch).logits, model(by_hand).logits)
    assert fronted.config.num_labels == 4

    detector = hf.YolosForObjectDetection(
        hf.YolosConfig(image_size=[32, 32], num_detection_tokens=5, num_labels=3, **small)
    ).eval()
    plain = hf.pipeline(
        "object-detection",
        model=detector,
        image_processor=hf.YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 48}),
    )
    found = vrdir.restore_before(plain, tiny, device="cpu")(photo, threshold=0.0)
    assert found == plain(restore(photo), threshold=0.0)
    # Boxes are in pixels of the photo, 97 wide, not of the detector's input, 48 wide.
    assert found[0]["box"]["xmax"] > 48


def test_other_pipelines_keep_the_size_of_the_photo(tiny: VRDIR, photo: Image.Image) -> None:
    hf: Any = import_or_skip("transformers")
    torch.manual_seed(0)
    restored = vrdir.Restore(tiny, device="cpu")(photo)
    two = {"depths": [1, 1], "sr_ratios": [4, 2], "patch_sizes": [7, 3], "strides": [4, 2]}
    heads = {"num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "hidden_sizes": [8, 16]}
    config = hf.SegformerConfig(
        num_encoder_blocks=2, decoder_hidden_size=16, num_labels=3, **two, **heads
    )
    plain = hf.pipeline(
        "image-segmentation",
        model=hf.SegformerForSemanticSegmentation(config).eval(),
        image_processor=hf.SegformerImageProcessor(size={"height": 64, "width": 64}),
    )
    found = vrdir.restore_before(plain, tiny, device="cpu")(photo, subtask="semantic")
    expected = plain(restored, subtask="semantic")
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["mask"].size == photo.size
        assert np.array_equal(mine["mask"], theirs["mask"])


def test_hugging_faces_trainer(tiny: VRDIR, tmp_path: Path) -> None:
    hf: Any = import_or_skip("transformers")
    import_or_skip("accelerate")
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    recogniser = hf.ViTForImageClassification(hf.ViTConfig(image_size=32, num_labels=2, **small))
    model = vrdir.restore_before(recogniser, tiny, mean=0.5, std=0.5)
    items = [
        {"pixel_values": torch.rand(3, 32, 32) * 2 - 1, "labels": n % 2, "name": "not used"}
        for n in range(4)
    ]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "report_to": [],
        "use_cpu": True,
        "save_steps": 1,
        "gradient_checkpointing": True,
    }
    arguments = hf.TrainingArguments(
        str(tmp_path), **settings, logging_strategy="no", disable_tqdm=True
    )
    trainer = hf.Trainer(model=model, args=arguments, train_dataset=items, eval_dataset=items)
    assert trainer.label_names == ["labels"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0
    after = model.state_dict()
    changed = {
        name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])
    }
    assert changed == {"recogniser"}
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in after.items())
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, after[name])


def test_padded_batch_for_detr(tiny: VRDIR, photo: Image.Image) -> None:
    hf: Any = import_or_skip("transformers")
    torch.manual_seed(0)
    backbone = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic"
    )
    small = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
    }
    heads = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "num_queries": 3,
        "num_labels": 2,
    }
    detector = hf.DetrForObjectDetection(
        hf.DetrConfig(backbone_config=backbone, **small, **heads)
    ).eval()
    processor = hf.DetrImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    model = vrdir.restore_before(detector, tiny, preprocessing=processor)
    assert model.front_end.normalisation == IMAGENET
    photos = [photo, photo.crop((0, 0, 40, 70))]
    batch = processor(images=photos, return_tensors="pt")
    assert not batch["pixel_mask"].all()
    with torch.no_grad():
        found = model(**batch)
        for number, one in enumerate(photos):
            alone = model.front_end(processor(images=one, return_tensors="pt"))["pixel_values"]
            rows, columns = alone.shape[2:]
            batch["pixel_values"][number, :, :rows, :columns] = alone[0]
        expected = detector(**batch)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.pred_boxes, expected.pred_boxes)


def test_timm(tiny: VRDIR, photo_batch: torch.Tensor) -> None:
    timm: Any = import_or_skip("timm")
    recogniser = timm.create_model("resnet18", num_classes=3).eval()
    model = vrdir.restore_before(recogniser, tiny)
    normalisation = model.front_end.normalisation
    assert normalisation == IMAGENET
    with torch.no_grad():
        expected = recogniser(normalisation.redo(tiny(photo_batch)))
        found = model(normalisation.redo(photo_batch))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    config = timm.data.resolve_model_data_config(recogniser)
    for preprocessing in (config, timm.data.create_transform(**config)):
        found = find_normalisation(torch.nn.Sequential(recogniser), preprocessing)
        assert (*found.mean, *found.std) == pytest.approx((*IMAGENET.mean, *IMAGENET.std))


def test_torchvision(tiny: VRDIR, photo: Image.Image) -> None:
    vision: Any = import_or_skip("torchvision")
    restore = vrdir.Restore(tiny, device="cpu")
    weights = vision.models.ResNet18_Weights.DEFAULT
    for preprocessing in (weights, weights.transforms()):
        model = vrdir.restore_before(vision.models.resnet18(), tiny, preprocessing=preprocessing)
        assert model.front_end.normalisation == IMAGENET
    detector = vision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    ).eval()
    images = [torch.rand(3, 60, 80), torch.rand(3, 100, 50)]
    with torch.no_grad():
        for mine, theirs in zip(
            vrdir.restore_before(detector, tiny)(images),
            detector([restore(i) for i in images]),
            strict=True,
        ):
            torch.testing.assert_close(mine["boxes"], theirs["boxes"], atol=1e-2, rtol=0)
    v2, tv_tensors = (
        import_or_skip("torchvision.transforms.v2"),
        import_or_skip("torchvision.tv_tensors"),
    )
    image = tv_tensors.Image(torch.from_numpy(np.array(photo)).permute(2, 0, 1))
    boxes = tv_tensors.BoundingBoxes([[1, 2, 30, 40]], format="XYXY", canvas_size=(75, 97))
    out, target = v2.Compose([restore, v2.Identity()])(image, {"boxes": boxes})
    assert type(out) is tv_tensors.Image
    assert torch.equal(out, restore(torch.from_numpy(np.array(photo)).permute(2, 0, 1)))
    assert torch.equal(target["boxes"], boxes)


def test_albumentations(tiny: VRDIR, weights: Path, photo: Image.Image) -> None:
    a: Any = import_or_skip("albumentations")
    restore, array = vrdir.Restore(tiny, device="cpu"), np.array(photo)
    answer = a.Compose([a.Lambda(image=restore, p=1)], bbox_params=a.BboxParams(format="coco"))(
        image=array, bboxes=[[1, 2, 30, 40, 5]]
    )
    assert np.array_equal(answer["image"], restore(array))
    # albumentations stores boxes relative to the size.
    np.testing.assert_allclose(answer["bboxes"], [[1, 2, 30, 40, 5]], rtol=1e-5)
    from vrdir.frontend import AlbumentationsRestore

    settings: Any = {"weights": str(weights), "device": "cpu", "channels": "bgr"}
    own = AlbumentationsRestore(**settings)
    bgr = np.ascontiguousarray(array[..., ::-1])
    mask = array[..., 0]
    again = a.Compose([own], bbox_params=a.BboxParams(format="coco"))(
        image=bgr, bboxes=[[1, 2, 30, 40, 5]], mask=mask
    )
    assert np.array_equal(again["image"][..., ::-1], restore(array))
    assert np.array_equal(again["mask"], mask)
    assert np.array_equal(a.from_dict(a.to_dict(own))(image=bgr)["image"], again["image"])
    assert np.array_equal(pickle.loads(pickle.dumps(own))(image=bgr)["image"], again["image"])
    unchanged = AlbumentationsRestore(**settings, strength=0.0)
    assert np.array_equal(a.from_dict(a.to_dict(unchanged))(image=bgr)["image"], bgr)


def test_ultralytics(tiny: VRDIR, photo: Image.Image, tmp_path: Path) -> None:
    plain = import_or_skip("ultralytics").YOLO("yolov8n.yaml", task="detect")
    model = vrdir.restore_before(plain, tiny, device="cpu")
    restored = vrdir.Restore(tiny, device="cpu")(photo)
    settings = {"verbose": False, "imgsz": 64, "device": "cpu"}
    photo.save(tmp_path / "photo.png")
    bgr = np.ascontiguousarray(np.asarray(photo)[..., ::-1])
    for source in (photo, bgr, tmp_path / "photo.png"):
        (result,) = model(source, **settings)
        assert np.array_equal(result.orig_img[..., ::-1], np.asarray(restored))
        assert result.orig_shape == (75, 97)
    assert result.path == str(tmp_path / "photo.png")
    results = list(model.predict([photo, bgr], stream=True, **settings))
    assert [np.array_equal(r.orig_img[..., ::-1], np.asarray(restored)) for r in results] == [
        True
    ] * 2
    torch.testing.assert_close(model.embed(photo, **settings), plain.embed(restored, **settings))
    assert model.names == plain.names


def test_ultralytics_tracks(tiny: VRDIR, photo: Image.Image) -> None:
    import_or_skip("lap")  # else Ultralytics tries to install it
    plain = import_or_skip("ultralytics").YOLO("yolov8n.yaml", task="detect")
    model = vrdir.restore_before(plain, tiny, device="cpu")
    bgr = np.ascontiguousarray(np.asarray(photo)[..., ::-1])
    for _ in range(2):
        (result,) = model.track(bgr, persist=True, verbose=False, imgsz=64, device="cpu")
        assert np.array_equal(
            result.orig_img[..., ::-1], np.asarray(vrdir.Restore(tiny, device="cpu")(photo))
        )
