"""The sound files that `benchmarks/fuzz.py` changes: some of every kind that vrdir reads."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tarfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MANIFEST = {"weights": "small", "format": None}  # the settings of the run in kind "manifests"
BOUNDARY = "vrdir-fuzz-boundary"


def make_seeds(folder: Path, kinds: Sequence[str]) -> None:
    """Write sound files of these kinds, each into the sub-folder of its kind."""
    makers: dict[str, Callable[[Path], None]] = {
        "images": _make_images,
        "videos": _make_videos,
        "weights": _make_weights,
        "labels": _make_labels,
        "pairs": _make_pairs,
        "yaml": _make_yaml,
        "manifests": _make_manifests,
        "exports": _make_exports,
        "cluster": _make_cluster,
        "requests": _make_requests,
    }
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
        makers[kind](folder / kind)


def _photo(width: int = 48, height: int = 40) -> Any:
    """Return an RGB uint8 array (H, W, 3) with gradients and some texture."""
    import numpy as np

    y, x = np.mgrid[:height, :width]
    texture = np.random.default_rng(0).integers(0, 24, (height, width, 3))
    ramps = np.stack([x * 4, y * 5, (x + y) * 2], -1)
    return ((ramps + texture) % 256).astype(np.uint8)


def _make_images(folder: Path) -> None:
    """Write images in every format and mode that Pillow can write here, some with metadata."""
    import numpy as np
    from PIL import Image

    from vrdir.images.sixteen_bits import DeepPicture

    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    modes = _pictures()
    unwanted = {"BUFR", "EPS", "GRIB", "HDF5", "PDF", "WMF", "PALM"}  # not readable as images
    for file_format in sorted(set(Image.SAVE) - unwanted):
        for mode, picture in modes.items():
            with (
                contextlib.suppress(OSError, ValueError, KeyError, TypeError),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")  # of deprecated formats
                picture.save(folder / f"{mode}.{file_format.lower()}", file_format)
    _make_variants(folder, modes["RGB"])
    modes["P"].save(folder / "transparent.png", transparency=bytes(range(32)))
    modes["1"].save(folder / "group4.tiff", compression="group4")
    deep = np.asarray(modes["RGBA"]).astype(np.uint16) * 257
    for name, pixels in (("deep", deep[..., :3]), ("deep_alpha", deep)):
        for suffix in (".png", ".tiff"):
            DeepPicture(np.ascontiguousarray(pixels), {}).save(folder / f"{name}{suffix}")
    for file in folder.iterdir():
        if not file.stat().st_size:
            file.unlink()


def _pictures() -> dict[str, Any]:
    """Return the same picture in several modes."""
    import numpy as np
    from PIL import Image

    colour = Image.fromarray(_photo())
    rgba = colour.convert("RGBA")
    rgba.putalpha(colour.getchannel(0))
    return {
        "1": colour.convert("1"),
        "L": colour.convert("L"),
        "LA": rgba.convert("LA"),
        "P": colour.quantize(32),
        "RGB": colour,
        "RGBA": rgba,
        "CMYK": colour.convert("CMYK"),
        "I16": Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257),
        "F": Image.fromarray(np.asarray(colour.convert("L"), np.float32) / 255),
    }


def _make_variants(folder: Path, colour: Any) -> None:
    """Write a picture with metadata, and with options of the encoders."""
    from PIL import Image, ImageCms

    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    metadata: dict[str, Any] = {
        "exif": exif.tobytes(),
        "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "xmp": b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a/></x:xmpmeta>',
    }
    for file_format in ("PNG", "JPEG", "TIFF", "WEBP", "AVIF", "HEIF"):
        if file_format in Image.SAVE:
            colour.save(folder / f"metadata.{file_format.lower()}", file_format, **metadata)
    colour.save(folder / "progressive.jpeg", progressive=True)
    colour.save(folder / "restart.jpeg", restart_marker_rows=1)
    colour.save(folder / "tiled.jp2", tile_size=(16, 16))
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "zstd"):
        with contextlib.suppress(OSError):
            colour.save(folder / f"{compression}.tiff", compression=compression)


def _make_videos(folder: Path) -> None:
    """Write short clips with sound in several containers and codecs."""
    import av
    import numpy as np

    for name, codec, pix_fmt in (
        ("a.mp4", "libx264", "yuv420p"),
        ("b.mkv", "libx264", "yuv420p"),
        ("c.webm", "libvpx-vp9", "yuv420p"),
        ("d.avi", "mpeg4", "yuv420p"),
        ("e.mov", "libx264", "yuv444p"),
        ("f.ts", "libx264", "yuv420p"),
        ("g.avi", "mjpeg", "yuvj420p"),
        ("h.mkv", "ffv1", "yuv420p"),
    ):
        with av.open(str(folder / name), "w") as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 48, 40, pix_fmt
            tone: Any = None
            if codec == "libx264":
                tone = container.add_stream("aac", rate=48000, layout="mono")
            for number in range(6):
                pixels = np.roll(_photo(), number, 1)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
            if tone is not None:
                for start in range(0, 9600, 1024):
                    silence = np.zeros((1, 1024), np.float32)
                    piece = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
                    piece.sample_rate, piece.pts = 48000, start
                    container.mux(tone.encode(piece))
                container.mux(tone.encode())


def _make_weights(folder: Path) -> None:
    """Write the folder of a small network: config.json and safetensors."""
    _small_network().save_pretrained(folder)


def _small_network() -> Any:
    """Return a small network with random weights."""
    import torch

    from vrdir.model.config import VRDIRConfig
    from vrdir.model.vrdir import VRDIR

    torch.manual_seed(0)
    config = VRDIRConfig(
        extractor="vgg16_conv2_2",
        strides=(2,),
        branches=("haze", "noise"),
        decoder="pixel_skip",
        widths=(4, 4),
        encoder_blocks=(0, 1),
        decoder_blocks=(1, 0),
    )
    return VRDIR(config).eval()


def _make_labels(folder: Path) -> None:
    """Write detection labels (COCO, YOLO, VOC), a classification CSV, and their images."""
    from PIL import Image

    names = ["a.png", "b.png"]
    for name in names:
        Image.fromarray(_photo()).save(folder / name)
    (folder / "coco.json").write_text(
        json.dumps(
            {
                "images": [
                    {"id": i, "file_name": name, "width": 48, "height": 40}
                    for i, name in enumerate(names)
                ],
                "annotations": [
                    {
                        "id": i,
                        "image_id": i % 2,
                        "category_id": 1 + i % 2,
                        "bbox": [1, 2, 10 + i, 9],
                        "iscrowd": 0,
                        "area": 90,
                    }
                    for i in range(4)
                ],
                "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            }
        )
    )
    for name in names:
        stem = name.removesuffix(".png")
        (folder / f"{stem}.txt").write_text("0 0.5 0.5 0.25 0.25\n1 0.25 0.25 0.1 0.2\n")
        (folder / f"{stem}.xml").write_text(
            f"<annotation><filename>{name}</filename>"
            "<size><width>48</width><height>40</height></size><object><name>cat</name>"
            "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>20</xmax><ymax>22</ymax></bndbox>"
            "<difficult>0</difficult></object></annotation>"
        )
    (folder / "classes.txt").write_text("cat\ndog\n")
    (folder / "data.yaml").write_text("path: .\nval: .\nnames:\n  0: cat\n  1: dog\n")
    (folder / "classes.csv").write_text("file,label\na.png,cat\nb.png,dog\n")


def _make_pairs(folder: Path) -> None:
    """Write a pair list and its images."""
    from PIL import Image

    for name in ("a.png", "b.png", "c.jpg"):
        Image.fromarray(_photo()).save(folder / name)
    (folder / "pairs.txt").write_text(
        "# degraded|clean\na.png|b.png\n@noise:sigma=25|a.png\n@haze:beta=1.0+rain|c.jpg\n\n"
        "b.png|c.jpg\n"
    )


def _make_yaml(folder: Path) -> None:
    """Write the recipes that come with vrdir, and a file of anchors and merge keys."""
    from vrdir.training.settings import RECIPES

    for name, path in RECIPES.items():
        shutil.copy(path, folder / f"{name}.yaml")
    (folder / "anchors.yaml").write_text(
        "a: &a [1, 2.5, x]\nb: {<<: &m {k: v}, c: *a}\nd: !!set {e, f}\ng: 2001-12-14\nh: 0x1F\n"
    )


def _make_manifests(folder: Path) -> None:
    """Write the manifest of a run of `vrdir restore`, and its sources and results."""
    from vrdir.batch.manifest import Manifest, stamp_of

    with Manifest(folder, "restore", MANIFEST) as manifest:
        for name in ("a.png", "b.png", "c.jpg"):
            source, target = folder / f"source-{name}", folder / name
            for file in (source, target):
                file.write_bytes(_encoded("PNG"))
            made_from, made = stamp_of(source), stamp_of(target)
            if made_from and made:
                manifest.add(source, made_from, target, made, {"haze": 0.25, "noise": 0.75})


def _make_exports(folder: Path) -> None:
    """Write a small network as ONNX, and in OpenVINO's format where that is installed."""
    from vrdir.errors import MissingPackageError
    from vrdir.export.exporting import export

    network = _small_network()
    export(network, folder / "network.onnx", "onnx", sizes=[(1, 16, 16)])
    export(network, folder / "static.onnx", "onnx", size=(16, 16))
    with contextlib.suppress(MissingPackageError):
        export(network, folder / "network.xml", "openvino", sizes=[(1, 16, 16)])


def _make_cluster(folder: Path) -> None:
    """Write a list of addresses, the account of a run, and shards (tar and Parquet)."""
    import pyarrow
    import pyarrow.parquet

    from vrdir.cluster.account import Account, Row

    lines = ["# images", "photos/a.png", "file:///photos/b.jpg", "s3://bucket/c.png", "", "d.webp"]
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    account = Account(str(folder))
    account.begin({"weights": "small", "max_side": None}, resume=False)
    account.write_part([Row("a.png", "out/a.png", 10, 20, key=5, haze=0.5)], "0")
    for part in Path(account.folder).iterdir():
        part.rename(folder / part.name)
    Path(account.folder).rmdir()
    images = {"a.png": _encoded("PNG"), "a.cls": b"3", "b.jpg": _encoded("JPEG")}
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for name, content in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    rows = [{"image": {"bytes": images["a.png"], "path": "a.png"}, "label": 3}, {"label": 4}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "shard.parquet")


def _make_requests(folder: Path) -> None:
    """Write requests to `vrdir serve`: the first line holds the head as JSON, the rest is the body.

    A file `.frame` is a message to the stream.
    """
    form = f"multipart/form-data; boundary={BOUNDARY}"
    parts = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
        + value
        + b"\r\n"
        for name, more, value in (
            ("strength", "", b"0.5"),
            ("only", "", b"noise"),
            ("image", '; filename="a.png"\r\nContent-Type: image/png', _encoded("PNG")),
        )
    )
    bodies = {
        "image": ("/v1/restore", "max_side=32&quality=80", {"content-type": "image/jpeg"}, "JPEG"),
        "diagnose": ("/v1/diagnose", "strength=1.5", {"content-type": "image/png"}, "PNG"),
        "json": ("/v1/restore", "", {"accept": "application/json;q=0.9, */*;q=0.1"}, "WEBP"),
    }
    for name, (path, query, headers, file_format) in bodies.items():
        head = json.dumps({"path": path, "query": query, "headers": headers})
        (folder / f"{name}.http").write_bytes(head.encode() + b"\n" + _encoded(file_format))
    head = json.dumps(
        {
            "path": "/v1/restore",
            "query": "",
            "headers": {"content-type": form, "accept": "multipart/mixed"},
        }
    )
    end = f"--{BOUNDARY}--\r\n".encode()
    (folder / "form.http").write_bytes(head.encode() + b"\n" + parts + end)
    for file_format in ("JPEG", "PNG"):
        (folder / f"{file_format}.frame").write_bytes(_encoded(file_format))


def _encoded(file_format: str) -> bytes:
    """Return a small photo as a file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(_photo()).save(buffer, file_format)
    return buffer.getvalue()
