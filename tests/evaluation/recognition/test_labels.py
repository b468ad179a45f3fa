"""Data sets on disk: what is read, and what is excluded by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vrdir.evaluation.recognition.labels.classes import class_numbers
from vrdir.evaluation.recognition.labels.classification import read_classification
from vrdir.evaluation.recognition.labels.detection import read_detection
from vrdir.evaluation.recognition.labels.reid import read_reid
from vrdir.images.formats import HEIF_SUFFIXES, IMAGE_SUFFIXES


def save(*paths: Path, size: tuple[int, int] = (40, 30)) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "grey").save(path)


def reasons(data: object) -> dict[str, str]:
    return {one.name: one.reason for one in data.excluded}  # type: ignore[attr-defined]


def test_folder_per_class(tmp_path: Path) -> None:
    save(
        tmp_path / "cat/1.png",
        tmp_path / "cat/2.jpg",
        tmp_path / "dog/1.png",
        tmp_path / "loose.png",
    )
    (tmp_path / "bird").mkdir()
    data = read_classification(tmp_path)
    assert [(item.name, label) for item, label in zip(data.images, data.labels, strict=True)] == [
        ("cat/1", "cat"), ("cat/2", "cat"), ("dog/1", "dog")
    ]  # fmt: skip
    assert reasons(data) == {
        "bird/": "an empty class: no image in its folder",
        "loose.png": "an image without label: it is in no class's folder",
    }
    save(
        tmp_path / "cat/.ipynb_checkpoints/1-checkpoint.png",
        tmp_path / "cat/._2.jpg",
        tmp_path / ".trash/3.png",
    )
    assert read_classification(tmp_path).images == data.images
    save(tmp_path / "cat/1.jpg")
    with pytest.raises(ValueError, match=r"2 images have the name cat/1"):
        read_classification(tmp_path)


def test_csv_of_labels_with_other_image_suffixes(tmp_path: Path) -> None:
    save(
        tmp_path / "images/a.png",
        tmp_path / "images/b.png",
        tmp_path / "images/c.png",
        tmp_path / "images/e.png",
    )
    (tmp_path / "labels.csv").write_text(
        "file,index,name\na.jpg,3,crane\nb.png,,crane\nd.png,1,boat\ne.png,0,tench\n"
    )
    data = read_classification(tmp_path / "labels.csv", tmp_path / "images")
    assert [(item.name, label) for item, label in zip(data.images, data.labels, strict=True)] == [
        ("a", "3"),
        ("e", "0"),
    ]
    assert {name: reason.split(":")[0] for name, reason in reasons(data).items()} == {
        "b.png": "an image without label",
        "c.png": "an image without label",
        "d.png": "a label without image",
    }  # fmt: skip
    (tmp_path / "other.csv").write_text("photo,kind\na.png,3\n")
    with pytest.raises(ValueError, match=r"columns photo, kind; it needs one of file"):
        read_classification(tmp_path / "other.csv")
    with pytest.raises(FileNotFoundError, match="is neither a folder nor a CSV file"):
        read_classification(tmp_path / "none.csv")


def test_labels_are_names_numbers_or_wordnet_ids() -> None:
    classes = ["tench", "crane", "bull mastiff", "crane", "motorbike"]
    numbers, problems = class_numbers(
        ["Bull_Mastiff", "4", "motorcycle", "crane", "unicorn", "5"], classes
    )
    assert numbers == {"Bull_Mastiff": 2, "4": 4, "motorcycle": 4}
    assert problems["crane"] == "label 'crane' is the name of the classes 1 and 3; use the number"
    assert "not one of the recogniser's 5 classes (tench, crane" in problems["unicorn"]
    assert "0 to 4" in problems["5"]
    assert class_numbers(["n02", "n01"], ["a", "b"])[0] == {}
    assert class_numbers(["n01440764", "n01530575"], ["n01530575", "n01440764"])[0] == {
        "n01440764": 1,
        "n01530575": 0,
    }
    assert class_numbers(["n01530575", "n01440764"], ["a", "b"])[0] == {
        "n01440764": 0,
        "n01530575": 1,
    }


def test_coco(tmp_path: Path) -> None:
    save(*(tmp_path / f"{name}.png" for name in ("a", "b", "wide", "out", "unlisted")))
    listed = [
        {"id": i, "file_name": f"{name}.png", "width": 40, "height": 30}
        for i, name in enumerate(("a", "b", "wide", "out", "gone"))
    ]
    listed[2]["width"] = 80
    boxes = [
        (0, [1, 2, 10, 20], 0),
        (0, [5, 5, 8, 8], 1),
        (2, [0, 0, 5, 5], 0),
        (3, [30, 10, 15, 10], 0),
        (9, [0, 0, 5, 5], 0),
    ]
    content = {
        "images": listed,
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": 7, "bbox": box, "iscrowd": crowd}
            for i, (image, box, crowd) in enumerate(boxes)
        ],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    data = read_detection(tmp_path / "labels.json")
    assert [item.name for item in data.images] == ["a", "b"]
    assert data.labels[0].boxes.tolist() == [[1, 2, 11, 22], [5, 5, 13, 13]]
    assert data.labels[0].labels == ["cat", "cat"]
    assert data.labels[0].ignored.tolist() == [False, True]
    assert data.labels[1].boxes.shape == (0, 4)  # nothing to find is a label too
    found = reasons(data)
    assert found["1 boxes"] in (
        "their image is not listed in labels.json",
        "crowds or difficult: ignored, so finding or missing them does not count",
    )
    assert found["wide"] == "the labels are for 80 x 30 pixels, the image has 40 x 30"
    assert "30, 10, 45, 20 (x0, y0, x1, y1) reaches out of its image of 40 x 30" in found["out"]
    assert "a label without image" in found["gone.png"]
    assert "an image without label" in found["unlisted.png"]
    assert len(data.excluded) == 6
    del content["categories"]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match="is not a COCO file: it must contain the lists images, annotations"
    ):
        read_detection(tmp_path / "labels.json")


def test_yolo(tmp_path: Path) -> None:
    save(*(tmp_path / f"images/val/{name}.png" for name in ("a", "b", "bad", "flat", "none")))
    labels = tmp_path / "labels/val"
    labels.mkdir(parents=True)
    for name, text in {
        "a": "1 0.5 0.5 0.5 0.2\n0 0.25 0.5 0.1 0.1\n",
        "b": "",
        "bad": "1 0.5",
        "flat": "0 .5 .5 0 .1",
        "gone": "",
    }.items():
        (labels / f"{name}.txt").write_text(text)
    data = read_detection(tmp_path)
    assert [item.name for item in data.images] == ["val/a", "val/b"]
    assert data.labels[0].labels == ["1", "0"]
    np.testing.assert_allclose(data.labels[0].boxes[0], [10, 12, 30, 18])
    found = reasons(data)
    assert "no none.txt" in found["val/none"]
    assert "line 1 must be: class, centre x" in found["val/bad"]
    assert "has no area" in found["val/flat"]
    assert "a label without image" in found["gone.txt"]
    (tmp_path / "classes.txt").write_text("cup\nfork\n")
    assert read_detection(tmp_path).labels[0].labels == ["fork", "cup"]
    with pytest.raises(ValueError, match="contains no labels"):
        read_detection(tmp_path / "images")


def test_voc_counts_pixels_from_one(tmp_path: Path) -> None:
    save(tmp_path / "JPEGImages/a.png")
    (tmp_path / "Annotations").mkdir()
    entry = "<object><name>{}</name><difficult>{}</difficult><bndbox>{}</bndbox></object>"
    box = "<xmin>1</xmin><ymin>11</ymin><xmax>40</xmax><ymax>30</ymax>"
    text = f"<annotation>{entry.format('cat', 0, box)}{entry.format('dog', 1, box)}</annotation>"
    (tmp_path / "Annotations/a.xml").write_text(text)
    data = read_detection(tmp_path)
    assert data.labels[0].boxes.tolist() == [[0, 10, 40, 30]] * 2
    assert data.labels[0].labels == ["cat", "dog"]
    assert data.labels[0].ignored.tolist() == [False, True]
    assert reasons(data) == {
        "1 boxes": "crowds or difficult: ignored, so finding or missing them does not count"
    }


def test_voc_labels_for_another_size_are_excluded(tmp_path: Path) -> None:
    save(*(tmp_path / f"{name}.png" for name in ("right", "turned", "silent")))
    edges = "<xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>20</ymax>"
    box = f"<object><name>cat</name><bndbox>{edges}</bndbox></object>"
    for name, size in (("right", (40, 30)), ("turned", (30, 40)), ("silent", (0, 0))):
        sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
        (tmp_path / f"{name}.xml").write_text(f"<annotation>{sides}{box}</annotation>")
    data = read_detection(tmp_path)
    assert [item.name for item in data.images] == ["right", "silent"]
    assert reasons(data) == {"turned": "the labels are for 30 x 40 pixels, the image has 40 x 30"}


def test_yolo_class_names_are_found(tmp_path: Path) -> None:
    data = yolo_tree(tmp_path / "mine", {"a.txt": "1 0.5 0.5 0.2 0.2"}, ("a.png",))
    (tmp_path / "classes.txt").write_text("dog\ncat\n")  # of other files in its folder
    (tmp_path / "VOC.yaml").write_text(
        "path: VOC\ntrain: images/train\nnames: [aeroplane, bicycle]\n"
    )
    assert read_detection(data).labels[0].labels == ["1"]
    (tmp_path / "some.yaml").write_text(
        "train: ../mine/images\nval: ../mine/images\nnames: {0: lorry, 1: tram}\n"
    )  # speaks of it
    assert read_detection(data).labels[0].labels == ["tram"]
    (data / "data.yaml").write_text("names: [car, person]\n")
    assert read_detection(data).labels[0].labels == ["person"]
    (data / "other.yaml").write_text("names: [person, car]\n")
    with pytest.raises(
        ValueError,
        match=r"data.yaml and .*other.yaml name the classes of .*mine differently; keep one",
    ):
        read_detection(data)
    (data / "classes.txt").write_text("van\nbus\n")
    assert read_detection(data).labels[0].labels == ["bus"]


def test_persons_and_cameras_from_file_names(tmp_path: Path) -> None:
    save(
        *(
            tmp_path / "query" / name
            for name in ("0002_c1s1_000451_03.jpg", "0000_c1s1_01.jpg", "photo.jpg")
        ),
        *(
            tmp_path / "bounding_box_test" / name
            for name in ("0002_c6s1_01.jpg", "0000_c2s1_01.jpg", "-1_c1s1_01.jpg", "-1_c2s1_01.jpg")
        ),
    )
    data = read_reid(tmp_path)
    # Person 0 stays in the gallery as a distractor.
    assert list(data.labels) == [(2, 1, True), (0, 2, False), (2, 6, False)]
    assert list(data.set_aside) == ["bounding_box_test/-1_c1s1_01", "bounding_box_test/-1_c2s1_01"]
    found = reasons(data)
    assert found["bounding_box_test/-1_* (2 images)"].startswith("junk by the Market-1501 protocol")
    assert "a query without a person" in found["query/0000_c1s1_01"]
    assert "contains no person and camera" in found["query/photo"]
    with pytest.raises(FileNotFoundError, match="folder .*query does not exist"):
        read_reid(tmp_path / "query")


def yolo_tree(folder: Path, labels: dict[str, str], images: tuple[str, ...]) -> Path:
    for name in images:
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(folder / "images" / name)
    for name, text in labels.items():
        (folder / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "labels" / name).write_text(text)
    return folder


def test_polygon_is_not_read_as_a_box(tmp_path: Path) -> None:
    labels = {
        "1.txt": "0 .3 .3 .5 .3 .5 .6 .3 .6\n",
        "2.txt": "0 .5 .5 .2 .2\n",
        "3.txt": "0.5 .5 .5 .2 .2\n",
    }
    data = read_detection(yolo_tree(tmp_path, labels, ("1.png", "2.png", "3.png")))
    assert [item.name for item in data.images] == ["2"]
    reasons = {one.name: one.reason for one in data.excluded}
    assert "a polygon or a rotated box" in reasons["1"]
    assert "a class must be a whole number" in reasons["3"]


def test_image_does_not_take_a_label_of_another_folder(tmp_path: Path) -> None:
    data = read_detection(
        yolo_tree(tmp_path, {"a/1.txt": "0 .5 .5 .2 .2\n"}, ("a/1.png", "b/1.png"))
    )
    assert [item.name for item in data.images] == ["a/1"]
    assert [one.name for one in data.excluded] == ["b/1"]


def test_coco_images_with_one_id_are_excluded(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": n} for n in ("a.png", "b.png")],
        "annotations": [],
        "categories": [{"id": 1, "name": "x"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="two with the same image id"):
        read_detection(tmp_path / "coco.json")


def test_unrelated_yaml_next_to_a_data_set_is_ignored(photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "labels").mkdir()
    photo.save(tmp_path / "data" / "images" / "a.png")
    (tmp_path / "data" / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "mkdocs.yml").write_text(
        "emoji: !!python/name:material.extensions.emoji.twemoji\n---\nmore: 1\n"
    )
    assert len(read_detection(tmp_path / "data").images) == 1
    (tmp_path / "data" / "data.yaml").write_text("names: [a\n")
    with pytest.raises(
        ValueError,
        match=r"data\.yaml cannot be read as YAML \(.*\); correct it, or write a classes\.txt",
    ):
        read_detection(tmp_path / "data")


def coco(
    folder: Path, images: list[Any], annotations: list[Any], categories: list[Any] | None = None
) -> Path:
    content = {
        "images": images,
        "annotations": annotations,
        "categories": categories or [{"id": 1, "name": "cat"}],
    }
    (folder / "labels.json").write_text(json.dumps(content))
    return folder / "labels.json"


def names_of(data: Any) -> list[str]:
    return [item.name for item in data.images]


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"bbox": []}, "annotation 7 has no box: bbox []"),
        ({"bbox": None}, "annotation 7 has no box: bbox None"),
        ({}, "annotation 7 has no box: bbox None"),
        ({"bbox": [1, 2, 3]}, "annotation 7 has no box: bbox [1, 2, 3]"),
        ({"bbox": "1, 2, 3, 4"}, "annotation 7 has no box"),
        ({"bbox": [1, 2, [3], 4]}, "annotation 7 has no box"),
        ({"bbox": [1, 2, int("9" * 400), 4]}, "annotation 7 has no box: bbox [1, 2, 9999999"),
        ({"bbox": [1, 2, float("nan"), 4]}, "the box 1, 2, nan, 6 (x0, y0, x1, y1) has no area"),
        ({"bbox": [1, 2, 0, 4]}, "has no area"),
        (
            {"bbox": [1, 2, 3, 4], "category_id": 99},
            "annotation 7 is of category 99, and no category of labels.json has that id",
        ),
        (
            {"bbox": [1, 2, 3, 4], "category_id": None},
            "annotation 7 is of category None, and no category",
        ),
        (
            {"bbox": [1, 2, 3, 4], "category_id": [1]},
            "annotation 7 is of category [1], and no category",
        ),
        (
            {"bbox": [1, 2, 3, 4], "category_id": 3},
            "annotation 7 is of category 3, and no category",
        ),
        (
            {"bbox": [1, 2, 3, 4], "category_id": 4},
            "annotation 7 is of category 4, and two categories of labels.json",
        ),
    ],
)
def test_invalid_coco_annotation_excludes_its_image(
    odd: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    save(tmp_path / "a.png", tmp_path / "b.png")
    good = {"id": 6, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    categories = [
        {"id": 1, "name": "cat"},
        {"id": 3},
        "dog",
        {"id": 4, "name": "x"},
        {"id": 4, "name": "y"},
    ]
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    data = read_detection(
        coco(
            tmp_path, images, [good, {"id": 7, "image_id": 2, "category_id": 1, **odd}], categories
        )
    )
    assert names_of(data) == ["a"]
    assert data.labels[0].boxes.tolist() == [[1, 2, 4, 6]]
    assert reason in reasons(data)["b"]


def test_invalid_coco_images_are_excluded_by_name(tmp_path: Path) -> None:
    save(*(tmp_path / f"{name}.png" for name in "abcdefg"))
    good = {"id": 1, "file_name": "a.png"}
    odd = [
        {"id": 2},
        {"file_name": "c.png"},
        {"id": 4, "file_name": None},
        {"id": [5], "file_name": "e.png"},
        "f.png",
        None,
    ]
    twice = [
        {"id": 6, "file_name": "f.png"},
        {"id": 7, "file_name": "f.png"},
        {"id": 8, "file_name": "g.png"},
        {"id": 8, "file_name": "d.png"},
    ]
    stray = [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]},
        {"image_id": {}, "bbox": []},
        3,
        {},
    ]
    data = read_detection(coco(tmp_path, [good, *odd, *twice], stray))
    assert names_of(data) == ["a"]
    found = reasons(data)
    assert found["image 2"] == found["image 4"] == "an image without file_name in labels.json"
    assert found["c.png"] == found["e.png"] == "an image without id in labels.json"
    assert found["f.png"] == "labels.json lists it twice"
    assert found["g.png"] == found["d.png"] == "two with the same image id, 8, in labels.json"
    assert found["3 boxes"] == "their image is not listed in labels.json"
    assert "an image without label" in found["b.png"]


@pytest.mark.parametrize(
    ("width", "height", "taken"),
    [
        ("40", "30", True),
        ("40.0", 30, True),
        (0, 0, True),
        ("0", None, True),
        (-1, "", True),
        ("wide", "high", True),
        (None, 30, True),
        (int("9" * 400), 30, True),
        (80, 30, False),
        ("80", "30", False),
        (0, 60, False),
    ],
)
def test_coco_sizes_may_be_text_and_0_is_unknown(
    width: Any, height: Any, taken: bool, tmp_path: Path
) -> None:
    save(tmp_path / "a.png", tmp_path / "b.png")
    images = [
        {"id": 1, "file_name": "a.png", "width": width, "height": height},
        {"id": 2, "file_name": "b.png"},
    ]
    data = read_detection(
        coco(tmp_path, images, [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}])
    )
    assert names_of(data) == (["a", "b"] if taken else ["b"])
    assert taken or "the labels are for" in reasons(data)["a"]


def test_coco_ids_may_be_numbers_or_text(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    data = read_detection(
        coco(
            tmp_path,
            [{"id": "1", "file_name": "a.png"}],
            [
                {
                    "id": 1,
                    "image_id": 1,
                    "category_id": 3.0,
                    "bbox": ["0", "0", "5", "5"],
                    "iscrowd": "1",
                }
            ],
            [{"id": "3", "name": "dog"}],
        )
    )
    assert (data.labels[0].labels, data.labels[0].ignored.tolist()) == (["dog"], [True])


def test_paths_of_another_machine_mean_the_only_file_with_that_ending(tmp_path: Path) -> None:
    images = tmp_path / "images"
    save(
        *(
            images / name
            for name in (
                "a.png",
                "deep/b.png",
                "train/1.png",
                "val/1.png",
                "val/2.png",
                "c.png",
                "d.png",
            )
        )
    )
    given = {
        "/home/somebody/set/a.jpg": "a",
        "C:\\set\\b.png": "deep/b",
        "/elsewhere/train/1.png": "train/1",
        "..\\val\\1.png": "val/1",
        "/x/c.png": "",  # two want it
        "/y/c.png": "",
        "train/2.png": "",  # its folder is here: val/2 is another image
        f"{images}/d.png": "d",
        "/z/none.png": "",
    }
    listed = [{"id": i, "file_name": name} for i, name in enumerate(given)]
    box = {"image_id": 0, "category_id": 1, "bbox": [0, 0, 5, 5]}
    data = read_detection(coco(tmp_path, listed, [box]), images)
    assert names_of(data) == [name for name in given.values() if name]
    found = reasons(data)
    assert all("a label without image" in found[name] for name, item in given.items() if not item)
    (tmp_path / "labels.csv").write_text(
        "".join(["file,label\n", *(f"{name},cat\n" for name in given)])
    )
    assert names_of(read_classification(tmp_path / "labels.csv", images)) == names_of(data)


def test_object_given_twice_counts_once(tmp_path: Path) -> None:
    lines = "0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n0 .5 .5 .2 .2\n0 0.50 0.5 0.2 0.2\n0 .5 .5 .2 .3\n"
    data = read_detection(yolo_tree(tmp_path / "yolo", {"a.txt": lines}, ("a.png",)))
    assert data.labels[0].labels == ["0", "1", "0"]
    assert reasons(data) == {"2 boxes": "listed twice: each counts once"}
    save(tmp_path / "coco/a.png")
    boxes = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": i // 2}
        for i in range(4)
    ]
    data = read_detection(coco(tmp_path / "coco", [{"id": 1, "file_name": "a.png"}], boxes))
    assert data.labels[0].ignored.tolist() == [False, True]
    save(tmp_path / "voc/a.png")
    edges = "<xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>20</ymax>"
    box = f"<object><name>cat</name><bndbox>{edges}</bndbox></object>"
    (tmp_path / "voc/a.xml").write_text(f"<annotation>{box}{box}</annotation>")
    assert len(read_detection(tmp_path / "voc").labels[0].boxes) == 1


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    ("labelled", "there"), [(NFC, NFD), (NFD, NFC), ("TRAM", "tram"), ("tram", "Tram")]
)
def test_names_with_composed_or_decomposed_letters_or_capitals(
    labelled: str, there: str, tmp_path: Path
) -> None:
    save(tmp_path / "images" / there / f"{there}.png", tmp_path / "images/plain.png")
    (tmp_path / "labels.csv").write_text(
        f"file,label\n{labelled}/{labelled}.jpg,{labelled}\nplain.png,0\n"
    )
    data = read_classification(tmp_path / "labels.csv", tmp_path / "images")
    assert names_of(data) == [f"{there}/{there}", "plain"]
    assert class_numbers(data.labels, [there, "other"]) == ({labelled: 0, "0": 0}, {})
    listed = [
        {"id": 1, "file_name": f"{labelled}/{labelled}.png"},
        {"id": 2, "file_name": "plain.png"},
    ]
    content = coco(tmp_path, listed, [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}])
    assert names_of(read_detection(content, tmp_path / "images")) == [f"{there}/{there}", "plain"]
    for label in (
        f"{labelled}/{labelled}.txt",
        f"elsewhere/{labelled}.txt",
    ):  # in the folder of the image, or the only one of this name
        tree = yolo_tree(
            tmp_path / label.split("/")[0] / there,
            {label: "0 .5 .5 .2 .2\n"},
            (f"{there}/{there}.png",),
        )
        assert names_of(read_detection(tree)) == [f"{there}/{there}"]
        (tree.parent / "set.yaml").write_text(
            f"path: data/{labelled}\nnames: [{labelled}]\n", encoding="utf-8"
        )
        assert read_detection(tree).labels[0].labels == [labelled]


def test_csv_files_as_other_programs_write_them(tmp_path: Path) -> None:
    save(tmp_path / "a\u2028b.png", tmp_path / "c.png")
    for text in (
        "\n\nfile,label\na\u2028b.png,0\nc.png,1\n",
        "file,label\ra\u2028b.png,0\rc.png,1\r",
        'file,note,label\na\u2028b.png,"two\nlines",0\nc.png,,1\n',
    ):
        (tmp_path / "labels.csv").write_text(text, encoding="utf-8", newline="")
        assert list(read_classification(tmp_path / "labels.csv").labels) == ["0", "1"]


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_labels_in_any_unicode_encoding(encoding: str, tmp_path: Path) -> None:
    tree = yolo_tree(tmp_path / "yolo", {"a.txt": ""}, ("a.png",))
    (tree / "labels/a.txt").write_bytes("1 .5 .5 .2 .2\r\n\r\n \r\n".encode(encoding))
    (tree / "classes.txt").write_bytes("tram\r\n b\u00fcs \r\n\r\n\r\n".encode(encoding))
    assert read_detection(tree).labels[0].labels == ["b\u00fcs"]
    (tree / "classes.txt").unlink()
    (tree / "data.yaml").write_bytes("names:\n- tram\n- b\u00fcs\n\n".encode(encoding))
    assert read_detection(tree).labels[0].labels == ["b\u00fcs"]
    save(tmp_path / "a.png")
    path = coco(
        tmp_path,
        [{"id": 1, "file_name": "a.png"}],
        [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}],
    )
    path.write_bytes(f"{path.read_text()}\n\n".encode(encoding))
    assert names_of(read_detection(path)) == ["a"]
    (tmp_path / "labels.csv").write_bytes("file,label\r\na.png,b\u00fcs\r\n\r\n".encode(encoding))
    assert read_classification(tmp_path / "labels.csv").labels == ["b\u00fcs"]


def test_unreadable_text_is_reported(tmp_path: Path) -> None:
    tree = yolo_tree(
        tmp_path / "yolo",
        {"a.txt": "0 .5 .5 .2 .2\n", "b.txt": "0 .5 .5 .2 .2\n"},
        ("a.png", "b.png"),
    )
    (tree / "labels/b.txt").write_bytes(b"0 .5 .5 .2 .2 # caf\xe9\n")
    data = read_detection(tree)
    assert names_of(data) == ["a"]
    assert "text in UTF-8 or UTF-16; save it as UTF-8" in reasons(data)["b"]
    (tree / "classes.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match=r"classes.txt is no.* text in UTF-8"):
        read_detection(tree)
    (tree / "classes.txt").unlink()
    (tree / "data.yaml").write_text("names: {one: car}\n")
    with pytest.raises(ValueError, match=r"data.yaml: `names` must be a list, or a mapping"):
        read_detection(tree)
    (tree / "data.yaml").write_text("[" * 5000)
    with pytest.raises(ValueError, match=r"data.yaml cannot be read as YAML"):
        read_detection(tree)
    (tmp_path / "labels.csv").write_bytes(b"file,label\na.png,caf\xe9\n")
    with pytest.raises(ValueError, match=r"labels.csv is no.* text in UTF-8"):
        read_classification(tmp_path / "labels.csv", tree / "images")
    (tmp_path / "labels.csv").write_text("file,label\na.png," + "9" * 5000 + "\n")
    ((_, problem),) = class_numbers(
        read_classification(tmp_path / "labels.csv", tree / "images").labels, ["a"]
    )[1].items()
    assert "not one of the recogniser's 1 classes" in problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100000, "brackets are nested too deeply"),
        ('{"images": ' + "[" * 100000, "nested too deeply"),
        ('{"images": [], "annotations": [], "categories": ' + "9" * 5000 + "}", "is no.* ?JSON"),
        ("{", "is no.* ?JSON"),
        ("", "is no.* ?JSON"),
        ("[]", "is not a COCO file"),
        ("9" * 400, "is not a COCO file"),
        ('{"images": {}, "annotations": [], "categories": []}', "is not a COCO file"),
        ('{"images": [], "annotations": null, "categories": []}', "is not a COCO file"),
        (
            '{"images": [], "annotations": [], "categories": []}',
            "there is no image|an image without label",
        ),
    ],
)
def test_invalid_coco_file_is_reported(content: str, message: str, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_detection(tmp_path / "labels.json")
    assert str(tmp_path / "labels.json") in str(caught.value)
    assert len(str(caught.value)) < 500


def test_files_of_unread_types_are_excluded_by_name(tmp_path: Path) -> None:
    for name in (
        "a.png",
        "b.jxl",
        "deep/c.dng",
        "scan.pdf",
        "d.JPG_odd",
        "README.md",
        "notes.txt",
        ".hidden.pdf",
        "Thumbs.db",
    ):
        (tmp_path / "photos/cat" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos/cat" / name).write_bytes(b"?")
    save(tmp_path / "photos/cat/a.png")
    left = {"b.jxl", "deep/c.dng", "scan.pdf", "d.JPG_odd"}
    found = reasons(read_classification(tmp_path / "photos"))
    assert found == {
        f"cat/{name}": f"a file of a type that is not read: {Path(name).suffix}; save images as PNG"
        for name in left
    }
    (tmp_path / "labels.csv").write_text("file,label\na.png,cat\nb.jxl,cat\n")
    found = reasons(read_classification(tmp_path / "labels.csv", tmp_path / "photos/cat"))
    assert found.keys() == left
    assert ".jxl; save images as PNG" in found["b.jxl"]
    path = coco(
        tmp_path,
        [{"id": 1, "file_name": "a.png"}],
        [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5]}],
    )
    assert reasons(read_detection(path, tmp_path / "photos/cat")).keys() == left
    (tmp_path / "photos/cat/a.txt").write_text("0 .5 .5 .2 .2\n")
    (tmp_path / "photos/cat/notes.txt").unlink()
    assert reasons(read_detection(tmp_path / "photos/cat")).keys() == left
    save(tmp_path / "persons/query/0001_c1.png", tmp_path / "persons/gallery/0001_c2.png")
    (tmp_path / "persons/query/0002_c1.jxl").write_bytes(b"?")
    assert reasons(read_reid(tmp_path / "persons")).keys() == {"query/0002_c1.jxl"}
    (tmp_path / "empty/cat").mkdir(parents=True)
    (tmp_path / "empty/cat/b.jxl").write_bytes(b"?")
    save(tmp_path / "empty/dog/a.png")
    assert reasons(read_classification(tmp_path / "empty")).keys() == {"cat/b.jxl"}


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES - HEIF_SUFFIXES))
def test_every_image_type_is_read(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "cat/a.png")
    (tmp_path / "cat/a.png").rename(tmp_path / f"cat/a{suffix}")
    data = read_classification(tmp_path)
    assert (names_of(data), data.excluded) == (["cat/a"], [])
    (tmp_path / "cat/a.txt").write_text("0 .5 .5 .2 .2\n")
    boxes = read_detection(tmp_path / "cat")
    assert (names_of(boxes), boxes.excluded) == (["a"], [])


def test_files_of_mac_archives_are_ignored(tmp_path: Path) -> None:
    save(tmp_path / "cat/1.png", tmp_path / "__MACOSX/cat/._1.png")
    data = read_classification(tmp_path)
    assert (names_of(data), data.excluded) == (["cat/1"], [])
    tree = yolo_tree(
        tmp_path / "yolo", {"a.txt": "0 .5 .5 .2 .2\n", "._a.txt": "\0Mac"}, ("a.png",)
    )
    assert read_detection(tree).excluded == []
