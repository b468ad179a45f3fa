"""Data sets on disk: what is read, and that all that does not fit is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrdir.evaluation.detection_labels import read_detection
from vrdir.evaluation.labels import class_numbers, read_classification, read_reid


def save(*paths: Path, size: tuple[int, int] = (40, 30)) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "grey").save(path)


def reasons(data: object) -> dict[str, str]:
    return {one.name: one.reason for one in data.excluded}  # type: ignore[attr-defined]


def test_a_folder_per_class(tmp_path: Path) -> None:
    save(tmp_path / "cat/1.png", tmp_path / "cat/2.jpg", tmp_path / "dog/1.png", tmp_path / "loose.png")
    (tmp_path / "bird").mkdir()
    data = read_classification(tmp_path)
    assert [(item.name, label) for item, label in zip(data.items, data.labels, strict=True)] == [
        ("cat/1", "cat"), ("cat/2", "cat"), ("dog/1", "dog")
    ]  # fmt: skip
    assert reasons(data) == {
        "bird/": "an empty class: no image in its folder",
        "loose.png": "an image without label: it lies in no class's folder",
    }
    save(tmp_path / "cat/.ipynb_checkpoints/1-checkpoint.png", tmp_path / "cat/._2.jpg", tmp_path / ".trash/3.png")
    assert read_classification(tmp_path).items == data.items
    save(tmp_path / "cat/1.jpg")
    with pytest.raises(ValueError, match=r"2 images are called cat/1"):
        read_classification(tmp_path)


def test_a_table_of_labels_whose_files_may_have_another_suffix(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", tmp_path / "images/b.png", tmp_path / "images/c.png", tmp_path / "images/e.png")
    (tmp_path / "labels.csv").write_text("file,index,name\na.jpg,3,crane\nb.png,,crane\nd.png,1,boat\ne.png,0,tench\n")
    data = read_classification(tmp_path / "labels.csv", tmp_path / "images")
    assert [(item.name, label) for item, label in zip(data.items, data.labels, strict=True)] == [("a", "3"), ("e", "0")]
    assert {name: reason.split(":")[0] for name, reason in reasons(data).items()} == {
        "b.png": "an image without label", "c.png": "an image without label", "d.png": "a label without image"
    }  # fmt: skip
    (tmp_path / "other.csv").write_text("photo,kind\na.png,3\n")
    with pytest.raises(ValueError, match=r"columns photo, kind; it needs one of file"):
        read_classification(tmp_path / "other.csv")
    with pytest.raises(FileNotFoundError, match="no folder or CSV file"):
        read_classification(tmp_path / "none.csv")


def test_labels_are_names_numbers_or_all_wordnet_ids_in_order() -> None:
    classes = ["tench", "crane", "bull mastiff", "crane", "motorbike"]
    numbers, problems = class_numbers(["Bull_Mastiff", "4", "motorcycle", "crane", "unicorn", "5"], classes)
    assert numbers == {"Bull_Mastiff": 2, "4": 4, "motorcycle": 4}
    assert problems["crane"] == "label 'crane' is the name of the classes 1 and 3; use the number"
    assert "none of the recogniser's 5 classes (tench, crane" in problems["unicorn"]
    assert "0 to 4" in problems["5"]
    assert class_numbers(["n02", "n01"], ["a", "b"])[0] == {}
    assert class_numbers(["n01440764", "n01530575"], ["n01530575", "n01440764"])[0] == {"n01440764": 1, "n01530575": 0}
    assert class_numbers(["n01530575", "n01440764"], ["a", "b"])[0] == {"n01440764": 0, "n01530575": 1}


def test_coco(tmp_path: Path) -> None:
    save(*(tmp_path / f"{name}.png" for name in ("a", "b", "wide", "out", "unlisted")))
    listed = [{"id": i, "file_name": f"{name}.png", "width": 40, "height": 30} for i, name in enumerate(("a", "b", "wide", "out", "gone"))]
    listed[2]["width"] = 80
    boxes = [(0, [1, 2, 10, 20], 0), (0, [5, 5, 8, 8], 1), (2, [0, 0, 5, 5], 0), (3, [30, 10, 15, 10], 0), (9, [0, 0, 5, 5], 0)]
    content = {
        "images": listed,
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 7, "bbox": box, "iscrowd": crowd} for i, (image, box, crowd) in enumerate(boxes)
        ],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    data = read_detection(tmp_path / "labels.json")
    assert [item.name for item in data.items] == ["a", "b"]
    assert data.truths[0].boxes.tolist() == [[1, 2, 11, 22], [5, 5, 13, 13]]
    assert data.truths[0].labels == ["cat", "cat"]
    assert data.truths[0].ignored.tolist() == [False, True]
    assert data.truths[1].boxes.shape == (0, 4)  # nothing to find is a label too
    found = reasons(data)
    assert found["1 boxes"] in ("their image is not listed in labels.json", "crowds or difficult: neither to be found nor missed")
    assert found["wide"] == "the labels are for 80 x 30 pixels, the image has 40 x 30"
    assert "30, 10, 45, 20 (x0, y0, x1, y1) reaches out of its image of 40 x 30" in found["out"]
    assert "a label without image" in found["gone.png"]
    assert "an image without label" in found["unlisted.png"]
    assert len(data.excluded) == 6
    del content["categories"]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is no COCO file of images, annotations and categories"):
        read_detection(tmp_path / "labels.json")


def test_yolo(tmp_path: Path) -> None:
    save(*(tmp_path / f"images/val/{name}.png" for name in ("a", "b", "bad", "flat", "none")))
    labels = tmp_path / "labels/val"
    labels.mkdir(parents=True)
    for name, text in {"a": "1 0.5 0.5 0.5 0.2\n0 0.25 0.5 0.1 0.1\n", "b": "", "bad": "1 0.5", "flat": "0 .5 .5 0 .1", "gone": ""}.items():
        (labels / f"{name}.txt").write_text(text)
    data = read_detection(tmp_path)
    assert [item.name for item in data.items] == ["val/a", "val/b"]
    assert data.truths[0].labels == ["1", "0"]
    np.testing.assert_allclose(data.truths[0].boxes[0], [10, 12, 30, 18])
    found = reasons(data)
    assert "no none.txt" in found["val/none"]
    assert "line 1 is not: class, centre x" in found["val/bad"]
    assert "has no area" in found["val/flat"]
    assert "a label without image" in found["gone.txt"]
    (tmp_path / "classes.txt").write_text("cup\nfork\n")
    assert read_detection(tmp_path).truths[0].labels == ["fork", "cup"]
    with pytest.raises(ValueError, match="holds no labels"):
        read_detection(tmp_path / "images")


def test_voc_counts_pixels_from_one(tmp_path: Path) -> None:
    save(tmp_path / "JPEGImages/a.png")
    (tmp_path / "Annotations").mkdir()
    entry = "<object><name>{}</name><difficult>{}</difficult><bndbox>{}</bndbox></object>"
    box = "<xmin>1</xmin><ymin>11</ymin><xmax>40</xmax><ymax>30</ymax>"
    text = f"<annotation>{entry.format('cat', 0, box)}{entry.format('dog', 1, box)}</annotation>"
    (tmp_path / "Annotations/a.xml").write_text(text)
    data = read_detection(tmp_path)
    assert data.truths[0].boxes.tolist() == [[0, 10, 40, 30]] * 2
    assert data.truths[0].labels == ["cat", "dog"]
    assert data.truths[0].ignored.tolist() == [False, True]
    assert reasons(data) == {"1 boxes": "crowds or difficult: neither to be found nor missed"}


def test_voc_labels_for_another_size_are_excluded(tmp_path: Path) -> None:
    save(*(tmp_path / f"{name}.png" for name in ("right", "turned", "silent")))
    box = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object>"
    for name, size in (("right", (40, 30)), ("turned", (30, 40)), ("silent", (0, 0))):
        sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
        (tmp_path / f"{name}.xml").write_text(f"<annotation>{sides}{box}</annotation>")
    data = read_detection(tmp_path)
    assert [item.name for item in data.items] == ["right", "silent"]
    assert reasons(data) == {"turned": "the labels are for 30 x 40 pixels, the image has 40 x 30"}


def test_yolo_class_names_are_the_data_sets_own(tmp_path: Path) -> None:
    data = yolo_tree(tmp_path / "mine", {"a.txt": "1 0.5 0.5 0.2 0.2"}, ("a.png",))
    (tmp_path / "classes.txt").write_text("dog\ncat\n")  # of whatever lies beside it
    (tmp_path / "VOC.yaml").write_text("path: VOC\ntrain: images/train\nnames: [aeroplane, bicycle]\n")
    assert read_detection(data).truths[0].labels == ["1"]
    (tmp_path / "some.yaml").write_text("train: ../mine/images\nval: ../mine/images\nnames: {0: lorry, 1: tram}\n")  # speaks of it
    assert read_detection(data).truths[0].labels == ["tram"]
    (data / "data.yaml").write_text("names: [car, person]\n")
    assert read_detection(data).truths[0].labels == ["person"]
    (data / "other.yaml").write_text("names: [person, car]\n")
    with pytest.raises(ValueError, match=r"data.yaml and .*other.yaml name the classes of .*mine differently; keep one"):
        read_detection(data)
    (data / "classes.txt").write_text("van\nbus\n")
    assert read_detection(data).truths[0].labels == ["bus"]


def test_persons_and_cameras_by_market_names(tmp_path: Path) -> None:
    save(
        *(tmp_path / "query" / name for name in ("0002_c1s1_000451_03.jpg", "0000_c1s1_01.jpg", "photo.jpg")),
        *(tmp_path / "bounding_box_test" / name for name in ("0002_c6s1_01.jpg", "0000_c2s1_01.jpg", "-1_c1s1_01.jpg", "-1_c2s1_01.jpg")),
    )
    data = read_reid(tmp_path)
    assert data.persons == [2, 0, 2]  # person 0 stays in the gallery as a distractor
    assert data.cameras == [1, 2, 6]
    assert data.queries == [True, False, False]
    assert list(data.set_aside) == ["bounding_box_test/-1_c1s1_01", "bounding_box_test/-1_c2s1_01"]
    found = reasons(data)
    assert found["bounding_box_test/-1_* (2 images)"].startswith("junk by the Market-1501 protocol")
    assert "a query without a person" in found["query/0000_c1s1_01"]
    assert "tells no person and camera" in found["query/photo"]
    with pytest.raises(FileNotFoundError, match="no folder .*query"):
        read_reid(tmp_path / "query")


def yolo_tree(folder: Path, labels: dict[str, str], images: tuple[str, ...]) -> Path:
    for name in images:
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(folder / "images" / name)
    for name, text in labels.items():
        (folder / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "labels" / name).write_text(text)
    return folder


def test_a_polygon_is_not_read_as_a_box(tmp_path: Path) -> None:
    labels = {"1.txt": "0 .3 .3 .5 .3 .5 .6 .3 .6\n", "2.txt": "0 .5 .5 .2 .2\n", "3.txt": "0.5 .5 .5 .2 .2\n"}
    data = read_detection(yolo_tree(tmp_path, labels, ("1.png", "2.png", "3.png")))
    assert [item.name for item in data.items] == ["2"]
    reasons = {one.name: one.reason for one in data.excluded}
    assert "a polygon or a turned box" in reasons["1"]
    assert "a class is a whole number" in reasons["3"]


def test_an_image_does_not_take_another_folders_label(tmp_path: Path) -> None:
    data = read_detection(yolo_tree(tmp_path, {"a/1.txt": "0 .5 .5 .2 .2\n"}, ("a/1.png", "b/1.png")))
    assert [item.name for item in data.items] == ["a/1"]
    assert [one.name for one in data.excluded] == ["b/1"]


def test_two_coco_images_of_one_id_are_refused(tmp_path: Path) -> None:
    content = {"images": [{"id": 1, "file_name": n} for n in ("a.png", "b.png")], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="two of one image id"):
        read_detection(tmp_path / "coco.json")


def test_yaml_beside_a_data_set_may_be_anything(photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "labels").mkdir()
    photo.save(tmp_path / "data" / "images" / "a.png")
    (tmp_path / "data" / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "mkdocs.yml").write_text("emoji: !!python/name:material.extensions.emoji.twemoji\n---\nmore: 1\n")
    assert len(read_detection(tmp_path / "data").items) == 1
    (tmp_path / "data" / "data.yaml").write_text("names: [a\n")
    with pytest.raises(ValueError, match=r"data\.yaml cannot be read as YAML \(.*\); mend it, or write a classes\.txt"):
        read_detection(tmp_path / "data")
