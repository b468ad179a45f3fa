"""`vrdir web build`: write the page with its network, as a folder for any web host or as one file.

The runtime (onnxruntime-web, MIT) contains 14 MB of WebAssembly, more than this whole package.
Therefore it is not part of the package: npm downloads it, and its hash is checked. A tarball or a
folder can be used instead.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vrdir import __version__
from vrdir.atomic import write_whole
from vrdir.errors import ExistsError, InputError, MissingFileError, MissingPackageError
from vrdir.model.vrdir import VRDIR
from vrdir.serving.page_export import export_for_page
from vrdir.serving.page_files import FOLDER, MEDIA_TYPES, page_files

RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_SHA512 = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
WASM_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
WEBGPU_FILES = (
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
LARGE = ("runtime/", "network.bin")  # the service worker stores them on first use, not before
LICENCES = "vendor/README.txt"
# For the page as one file: the scripts of the worker, and the files that become part of the HTML.
OF_WORKER = ("device-worker.js", "borders.js", "strips.js", "large.js", "fourier.js", "diagnose.js")
INLINED = ("index.html", "page.css", "start.js", "sw.js", "app.js", "icon.svg", "device.json")


def build_page(
    network: VRDIR, name: str, folder: Path, runtime: Path | None = None, webgpu: bool = False
) -> dict[str, int]:
    """Write the page, the network and the runtime into a folder.

    Args:
        network: the network that restores.
        name: the name of the weights, as the page shows it.
        folder: where to write; it must be new, empty, or an earlier build, which is replaced.
        runtime: a tarball or an unpacked folder of onnxruntime-web; None downloads it with npm.
        webgpu: add the files for WebGPU.

    Returns:
        The size in bytes of each file, by its path in the folder.

    Raises:
        ExistsError: the folder contains other files.
        InputError: the tarball is not of the expected version, or npm could not download it.
        MissingFileError: the runtime or a file of it does not exist.
        MissingPackageError: npm or the extra `export` is not installed.
        ResultError: the exported network's results are not PyTorch's.
    """
    if folder.exists() and not (folder / "device.json").is_file() and any(folder.iterdir()):
        raise ExistsError(f"{folder} contains other files; choose a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # In the same parent folder, so that the finished folder only has to be renamed.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".web-build-") as made:
        site = Path(made) / "site"
        shutil.copytree(FOLDER, site)
        _copy_runtime(runtime, site / "runtime", webgpu)
        facts = export_for_page(network, site / "network.bin")
        _describe(network, name, site, facts, webgpu)
        if folder.exists():
            shutil.rmtree(folder)
        site.rename(folder)
    return {address: path.stat().st_size for address, path in page_files(folder).items()}


def build_file(network: VRDIR, name: str, path: Path, runtime: Path | None = None) -> int:
    """Write the page, the network and the runtime as one HTML file, which also opens from disk.

    Args:
        network: the network that restores.
        name: the name of the weights, as the page shows it.
        path: the file; one that exists is replaced.
        runtime: as for `build_page`.

    Returns:
        The size of the file in bytes.

    Raises:
        VrdirError: the errors of `build_page`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        build_page(network, name, site, runtime)
        write_whole(in_one_file(site).encode(), path)
    return path.stat().st_size


def in_one_file(site: Path) -> str:
    """Return the page of a build as HTML that contains all files.

    Inside one file, modules cannot import each other by relative addresses. They use names, which
    an import map in the page defines.

    Args:
        site: the folder of the build.
    """
    found = page_files(site)
    text = {address: found[address].read_text("utf-8") for address in (*INLINED, LICENCES)}
    mapped, embedded = {}, []
    for address, path in found.items():
        if address == "device.json" or not (address in INLINED or "vendor/" in address):
            if address.endswith(".js") and address not in OF_WORKER:
                module = _base64(_named_imports(path).encode())
                mapped[f"page/{address}"] = f"data:text/javascript;base64,{module}"
            else:
                kind = MEDIA_TYPES[path.suffix]
                embedded.append(
                    f'<script type="text/plain" data-file="{address}" data-type="{kind}">'
                    f"{_base64(path.read_bytes())}</script>"
                )
    slider = found["vendor/img-comparison-slider.js"].read_text("utf-8")
    icon = "data:image/svg+xml," + quote(text["icon.svg"])
    page = text["index.html"].replace('href="icon.svg"', f'href="{icon}"')
    page = page.replace('src="icon.svg"', f'src="{icon}"')
    scripts = [
        f'<script type="importmap">{json.dumps({"imports": mapped})}</script>',
        *embedded,
        f"<script>{slider}</script>",
        f'<script type="module">{_named_imports(found["app.js"])}</script>',
        f"<!--\n{text[LICENCES].replace('--', '- -')}-->",
    ]
    page = re.sub(r' *<script (?:defer|type="module") src=.*?</script>\n', "", page)
    page = re.sub(r' <a href="vendor/README.txt">.*?</a>', "", page)
    page = re.sub(
        r'<link rel="stylesheet".*?>', lambda _: f"<style>{text['page.css']}</style>", page
    )
    return page.replace("</body>", "\n".join(scripts) + "\n</body>")


def _named_imports(path: Path) -> str:
    return re.sub(r'from "\./', 'from "page/', path.read_text("utf-8"))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _describe(
    network: VRDIR, name: str, site: Path, of_network: dict[str, Any], webgpu: bool
) -> None:
    """Write device.json, which describes the network, and the name of the build into sw.js."""
    found = page_files(site)
    runtime = [address for address in found if address.startswith("runtime/")]
    of_webgpu = [one for one in runtime if "webgpu" in one or "asyncify" in one]
    needed = of_webgpu or runtime
    facts = {
        "offered": True,
        "weights": name,
        "version": __version__,
        "shares": list(network.config.guidance_names),
        "webgpu": webgpu,
        "runtime": runtime,
        "download": sum(found[one].stat().st_size for one in (*needed, "network.bin")),
        "files": ["./", *(one for one in found if one != "sw.js" and not one.startswith(LARGE))],
        **of_network,
    }
    (site / "device.json").write_text(json.dumps(facts, indent=1) + "\n")
    digest = hashlib.sha256()
    for path in page_files(site).values():
        digest.update(path.read_bytes())
    worker = (site / "sw.js").read_text("utf-8")
    (site / "sw.js").write_text(worker.replace("vrdir-BUILD", f"vrdir-{digest.hexdigest()[:16]}"))


def _copy_runtime(runtime: Path | None, folder: Path, webgpu: bool) -> None:
    """Copy the files of the runtime; compress WebAssembly, which the page decompresses."""
    folder.mkdir()
    with _runtime_folder(runtime) as unpacked:
        for file in (*WASM_FILES, *(WEBGPU_FILES if webgpu else ())):
            if not (unpacked / file).is_file():
                raise MissingFileError(f"{unpacked} has no {file}; it is not onnxruntime-web")
            content = (unpacked / file).read_bytes()
            if file.endswith(".wasm"):
                (folder / f"{file}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (folder / file).write_bytes(content)


@contextmanager
def _runtime_folder(runtime: Path | None) -> Iterator[Path]:
    """Yield a folder with the unpacked files of onnxruntime-web."""
    if runtime is not None and runtime.is_dir():
        yield runtime / "dist" if (runtime / "dist").is_dir() else runtime
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tarball = runtime if runtime is not None else _fetched(folder)
        if not tarball.is_file():
            raise MissingFileError(f"the runtime does not exist: {tarball}")
        _check_hash(tarball)
        with tarfile.open(tarball) as archive:
            for file in (*WASM_FILES, *WEBGPU_FILES):
                content = archive.extractfile(f"package/dist/{file}")
                if content is not None:
                    (folder / file).write_bytes(content.read())
        yield folder


def _check_hash(tarball: Path) -> None:
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if digest != RUNTIME_SHA512:
        raise InputError(f"{tarball} is not {RUNTIME}: its SHA-512 differs; download it again")


def _fetched(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingPackageError(
            f"npm is needed to download {RUNTIME} and is not installed; install it, or use "
            "--runtime FILE"
        )
    done = subprocess.run(
        [npm, "pack", RUNTIME, "--silent"], cwd=folder, capture_output=True, text=True, check=False
    )
    tarballs = sorted(folder.glob("*.tgz"))
    if done.returncode or not tarballs:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise InputError(f"npm could not download {RUNTIME} ({reason}); use --runtime FILE")
    return tarballs[0]
