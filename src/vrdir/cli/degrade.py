"""The command `vrdir degrade`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrdir.cli.console import escape, out
from vrdir.cli.errors import one_line_errors
from vrdir.cli.options import (
    AsJson,
    Format,
    MaxMegapixels,
    Overwrite,
    Quality,
    Resume,
    Threads,
    allow,
    check_quality,
    suffix_of,
)
from vrdir.cli.pipes import is_piped, through_pipe
from vrdir.cli.runs import manifest_of, run_files
from vrdir.errors import InputError, MissingFileError

if TYPE_CHECKING:
    from vrdir.batch.results import FileJob, ResultWriter
    from vrdir.degradations.steps import Step

DEPTH_SUFFIXES = (".npy", ".png", ".tif", ".tiff", ".pgm", ".webp", ".jpg")
Photos = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT...", help="Images, folders or patterns.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="A folder, or a file for one input file.", show_default=False
    ),
]
Steps = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="NAME[:PARAMETER=VALUE,...]",
        help="A degradation, such as haze:severity=3 or rain:veil=0..0.1; repeat it for several.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        help="The same seed gives the same pixels. The random numbers of a file depend on the "
        "seed, its name and its sub-folder."
    ),
]
Depth = Annotated[
    Path | None,
    typer.Option(
        help="For haze and night_haze: a depth map, or a folder of maps with the names of the "
        "photos; grey of 8 or 16 bits, or .npy; white is far."
    ),
]
ListAll = Annotated[
    bool,
    typer.Option(
        "--list", help="List the degradations, their parameters, defaults and severities."
    ),
]


@dataclass(frozen=True)
class DegradeOptions:
    """How to degrade, as given on the command line.

    Attributes:
        steps: the degradations, in order.
        texts: the same as given by --with.
        seed: of all draws.
        depth: a depth map, or a folder of maps.
        file_format: of the results, such as "png"; None keeps each input's.
        quality: of results in lossy formats, 1 to 100.
    """

    steps: list[Step]
    texts: list[str]
    seed: int
    depth: Path | None
    file_format: str | None
    quality: int


def degrade(
    context: typer.Context,
    inputs: Photos = None,
    output: Output = None,
    steps: Steps = None,
    seed: Seed = 0,
    depth: Depth = None,
    file_format: Format = None,
    quality: Quality = 95,
    overwrite: Overwrite = False,
    resume: Resume = False,
    max_megapixels: MaxMegapixels = None,
    list_all: ListAll = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Degrade images: haze, rain, snow, blur, low light, noise, JPEG."""
    if list_all:
        list_degradations(as_json)
        return
    with one_line_errors():
        allow(max_megapixels)
        if not inputs or output is None or not steps:
            raise InputError(
                "needs INPUT, -o OUTPUT and at least one --with (--list names the degradations)"
            )
        parsed = checked_steps(steps, depth)
        options = DegradeOptions(parsed, steps, seed, depth, file_format, quality)
        if is_piped(inputs, output):
            degrade_pipe(context, inputs, output, options, overwrite)
            return
    degrade_files(context, inputs, output, options, overwrite, resume, as_json)


def checked_steps(texts: Sequence[str], depth: Path | None) -> list[Step]:
    """Read the degradations of --with, and check them and the depth.

    Raises:
        InputError: a degradation is wrong, or the depth has no effect.
        MissingFileError: the depth does not exist.
    """
    from vrdir.degradations.degrade import taking_depth
    from vrdir.degradations.steps import check_steps, parse_degradations

    steps = [step for text in texts for step in parse_degradations(text)]
    check_steps(steps)
    if depth is not None:
        taking_depth(steps)
        if not depth.exists():
            raise MissingFileError(f"{depth} does not exist")
    return steps


def degrade_pipe(
    context: typer.Context,
    inputs: list[str],
    output: Path,
    options: DegradeOptions,
    overwrite: bool,
) -> None:
    """Degrade one image that is read from or written to a pipe."""
    from vrdir.degradations.degrade import degrade_with
    from vrdir.degradations.draws import seed_of

    depth = options.depth
    if depth is not None and not depth.is_file():
        raise InputError(f"{depth} is a folder; for one image use one depth map")
    own_seed = seed_of(options.seed, 0, Path(inputs[0]).stem)
    through_pipe(
        context,
        inputs,
        output,
        suffix_of(options.file_format),
        overwrite,
        lambda picture: degrade_with(picture, options.steps, own_seed, depth),
        options.quality,
    )


def degrade_files(
    context: typer.Context,
    inputs: list[str],
    output: Path,
    options: DegradeOptions,
    overwrite: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Degrade files and folders of files."""
    from vrdir.batch.plan import plan_files
    from vrdir.batch.process import process_files

    depth, quality = options.depth, options.quality
    with one_line_errors():
        others = Counter[str]()
        jobs = plan_files(inputs, output, suffix_of(options.file_format), others=others)
        if depth is not None and depth.is_file() and len(jobs) > 1:
            raise InputError(
                f"{depth} is one depth map, but there are {len(jobs)} images; use a folder of maps "
                "with the names of the images"
            )
        check_quality(context, jobs)
        names = {job: name_of(job, output) for job in jobs}
        maps = {} if depth is None else depth_maps(names, depth)
        settings = {
            "with": options.texts,
            "seed": options.seed,
            "depth": depth and str(depth.resolve()),
            "format": options.file_format,
        }
        settings |= {"quality": quality} if quality != 95 else {}
        manifest = manifest_of(jobs, inputs, output, "degrade", settings, resume)
    with manifest or nullcontext():
        results = process_files(
            jobs,
            lambda job: degraded(job, names[job], options, maps.get(job)),
            overwrite,
            manifest,
        )
        run_files(results, len(jobs), "degraded", as_json, manifest=manifest, others=others)


def list_degradations(as_json: bool) -> None:
    """Print each degradation with its parameters: defaults, units, bounds and severities."""
    from vrdir.degradations.parameters import shown
    from vrdir.degradations.registry import DEGRADATIONS, OVERLAYS

    every = DEGRADATIONS | OVERLAYS
    if as_json:
        facts = {
            name: {"defaults": one.defaults, "severities": one.severities}
            for name, one in every.items()
        }
        typer.echo(json.dumps(facts, indent=1))
        return
    for name, one in every.items():
        out.print(f"[bold]{name}[/]: {escape(one.summary)}")
        for key, parameter in one.parameters.items():
            unit = f" {parameter.unit}" if parameter.unit else ""
            about = f"  {key}={shown(parameter.default)}{unit}: {parameter.about}"
            out.print(escape(f"{about} ({parameter.allowed})"))
            if parameter.severities:
                severities = ", ".join(map(shown, parameter.severities))
                out.print(escape(f"    severity 1 to 5: {severities}"), style="dim")
    with_depth = [name for name, one in every.items() if "depth" in one.parameters]
    out.print(f"With --depth: {', '.join(with_depth)}.")


def name_of(job: FileJob, output: Path) -> str:
    """Return a photo's name without suffix, with its folders below the input folder."""
    below = job.target.relative_to(output) if job.target != output else Path()
    return (below.parent / job.source.stem).as_posix()


def degraded(job: FileJob, name: str, options: DegradeOptions, depth: Path | None) -> ResultWriter:
    """Degrade one file. Its draws depend only on the seed and its name.

    Raises:
        MissingFileError: its depth map does not exist.
    """
    from vrdir.batch.results import content_writer
    from vrdir.degradations.degrade import degrade_with
    from vrdir.degradations.draws import seed_of
    from vrdir.images.reading import read_file
    from vrdir.images.writing import encode, format_of

    if depth is not None and not depth.is_file():
        raise MissingFileError(
            f"no depth map {name}.* in {depth.parent} (looked for {', '.join(DEPTH_SUFFIXES)})"
        )
    own_seed = seed_of(options.seed, 0, name)
    image: Any = degrade_with(read_file(job.source), options.steps, own_seed, depth)
    content = encode(image, format_of(job.target), str(job.target), options.quality)
    return content_writer(content, {})


def depth_maps(names: Mapping[FileJob, str], depth: Path) -> dict[FileJob, Path]:
    """Return the depth map of each photo.

    It is the file `depth` itself, or the file in the folder `depth` with the photo's name, with or
    without the photo's sub-folders. A photo without a map gets a path that does not exist.

    Raises:
        InputError: several photos have the name of one map.
    """
    if depth.is_file():
        return dict.fromkeys(names, depth)
    last = Counter(Path(name).name for name in names.values())
    maps = {}
    for job, name in names.items():
        files = [
            depth / (stem + suffix) for stem in (name, Path(name).name) for suffix in DEPTH_SUFFIXES
        ]
        maps[job] = next((file for file in files if file.is_file()), depth / Path(name).name)
        if (
            maps[job].parent == depth
            and Path(name).name != name
            and maps[job].is_file()
            and last[Path(name).name] > 1
        ):
            raise InputError(
                f"{maps[job]} may belong to several photos; keep their folders, as in "
                f"{depth / name}{maps[job].suffix}"
            )
    return maps
