"""`vrdir web build`: the page with the exported network, as a folder for any web host.

The runtime (onnxruntime-web, MIT) has 14 MB of WebAssembly, more than the whole package, so it is
not part of it: npm fetches it once, and its hash is checked. A tarball or folder does as well.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vrdir import __version__
from vrdir.errors import ExistsError, InputError, MissingFileError, MissingPackageError
from vrdir.export.exporting import export
from vrdir.model.vrdir import VRDIR
from vrdir.serving.page_files import FOLDER, page_files

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
MAX_SIDE = 1024  # pixels: what a browser restores within its memory


def build_page(
    network: VRDIR, name: str, folder: Path, runtime: Path | None = None, webgpu: bool = False
) -> dict[str, int]:
    """Write the page, the network and the runtime into a folder.

    Args:
        network: what restores.
        name: of the weights, as the page shows it.
        folder: where to write; it must be new, empty, or an earlier build.
        runtime: a tarball or unpacked folder of onnxruntime-web; None has npm fetch it.
        webgpu: add the files for WebGPU, 27 MB more.

    Returns:
        The size in bytes of each file by its address.

    Raises:
        ExistsError: the folder holds something else.
        InputError: the runtime is not the one that was asked for.
        MissingFileError: a file of the runtime is not there.
        MissingPackageError: npm or the extra `export` is not installed.
    """
    if folder.exists() and not (folder / "device.json").is_file() and any(folder.iterdir()):
        raise ExistsError(f"{folder} holds other files; choose a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with _runtime_folder(runtime) as unpacked:
        wanted = (*WASM_FILES, *(WEBGPU_FILES if webgpu else ()))
        for file in wanted:
            if not (unpacked / file).is_file():
                raise MissingFileError(f"{unpacked} has no {file}; it is not onnxruntime-web")
        (folder / "runtime").mkdir(exist_ok=True)
        for file in wanted:
            shutil.copyfile(unpacked / file, folder / "runtime" / file)
    for address, path in page_files(FOLDER).items():
        (folder / address).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / address)
    (folder / "device.json").unlink(missing_ok=True)
    export(network, folder / "model.onnx", "onnx")
    _describe(network, name, folder, webgpu)
    return {address: path.stat().st_size for address, path in page_files(folder).items()}


def _describe(network: VRDIR, name: str, folder: Path, webgpu: bool) -> None:
    """Write device.json, by which the page knows that it can restore by itself."""
    files = [address for address in page_files(folder) if address != "sw.js"]
    facts = {
        "offered": True,
        "weights": name,
        "version": __version__,
        "shares": list(network.config.guidance_names),
        "bytes": (folder / "model.onnx").stat().st_size,
        "max_side": MAX_SIDE,
        "webgpu": webgpu,
        "files": ["./", *files, "device.json"],
    }
    (folder / "device.json").write_text(json.dumps(facts, indent=1) + "\n")


@contextmanager
def _runtime_folder(runtime: Path | None) -> Iterator[Path]:
    """Give the folder with the unpacked files of onnxruntime-web."""
    if runtime is not None and runtime.is_dir():
        yield runtime / "dist" if (runtime / "dist").is_dir() else runtime
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tarball = runtime if runtime is not None else _fetched(folder)
        if not tarball.is_file():
            raise MissingFileError(f"there is no runtime {tarball}")
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
        raise InputError(f"{tarball} is not {RUNTIME}: its SHA-512 differs; get it again")


def _fetched(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingPackageError(
            f"npm, which fetches {RUNTIME}, is not installed; install it, or give --runtime FILE"
        )
    done = subprocess.run(
        [npm, "pack", RUNTIME, "--silent"], cwd=folder, capture_output=True, text=True, check=False
    )
    tarballs = sorted(folder.glob("*.tgz"))
    if done.returncode or not tarballs:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise InputError(f"npm could not fetch {RUNTIME} ({reason}); give --runtime FILE")
    return tarballs[0]
