"""Measure how easily a newcomer finds their way in this repository, and print a table.

    python tools/house.py                      # the table
    python tools/house.py --list words         # each place that counts, as file:line: text
    python tools/house.py --list D src/vrdir/images

Needs the package ruff for the docstring rules, and nothing else.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

COLUMNS = 100
FUNCTION_LINES = 60
MODULE_LINES = 400
WORDS = r"stands|lies|told|said|called|comes out"
KEPT = {
    "docs site": "mkdocs.yml",
    "publish workflow": ".github/workflows/publish.yml",
    "security policy": "SECURITY.md",
    "issue forms": ".github/ISSUE_TEMPLATE",
    "code of conduct": "CODE_OF_CONDUCT.md",
}
ERRORS = {
    "ArithmeticError", "AttributeError", "Exception", "FileExistsError", "FileNotFoundError",
    "ImportError", "IndexError", "IsADirectoryError", "KeyError", "LookupError",
    "ModuleNotFoundError", "NotADirectoryError", "OSError", "PermissionError", "RuntimeError",
    "ValueError",
}  # fmt: skip
"""Built-in errors that a caller cannot distinguish from a bug; TypeError, which reports one, may
stay."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Measure:
    """One row of the table."""

    places: list[str] = field(default_factory=list)
    """Each place that counts: "file:line: text"."""
    out_of: float = 0
    """How many places were looked at; 0 where only the count matters."""
    per: float = 100
    """The share is given per this many."""

    def __str__(self) -> str:
        """Return the count, with the share where there is one."""
        if not self.out_of:
            return str(len(self.places))
        share = self.per * len(self.places) / self.out_of
        unit = "%" if self.per == 100 else f" per {self.per:.0f}"
        return f"{len(self.places)} ({share:.1f}{unit})"


@dataclass(frozen=True)
class Source:
    """A Python file, read and parsed."""

    path: Path
    text: str
    tree: ast.Module

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read and parse a file."""
        text = path.read_text(encoding="utf-8")
        return cls(path, text, ast.parse(text))

    def place(self, line: int, text: str) -> str:
        """Return "file:line: text"."""
        return f"{self.path}:{line}: {text.strip()}"

    def documented(self) -> Iterator[Documented]:
        """Yield the module, its classes and its functions."""
        for node in ast.walk(self.tree):
            if isinstance(node, Documented):
                yield node

    def docstrings(self) -> Iterator[ast.Constant]:
        """Yield the docstrings, those below attributes included."""
        for node in self.documented():
            for statement in node.body:
                value = getattr(statement, "value", None)
                if (
                    isinstance(statement, ast.Expr)
                    and isinstance(value, ast.Constant)
                    and isinstance(value.value, str)
                ):
                    yield value


def long_lines(sources: Iterable[Source]) -> dict[str, Measure]:
    """Count the lines over 100 columns by what they hold."""
    measures = {kind: Measure() for kind in ("code", "comments", "docstrings")}
    for source in sources:
        kinds: dict[int, str] = {}
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
            if token.type == tokenize.COMMENT:
                kinds[token.start[0]] = "comments"
        for docstring in source.docstrings():
            for number in range(docstring.lineno, (docstring.end_lineno or 0) + 1):
                kinds[number] = "docstrings"
        lines = source.text.splitlines()
        for number, line in enumerate(lines, 1):
            measure = measures[kinds.get(number, "code")]
            measure.out_of += 1
            if len(line) > COLUMNS:
                measure.places.append(source.place(number, line[:COLUMNS]))
    return measures


def long_lines_of_pages(pages: Iterable[Path]) -> Measure:
    """Count the lines over 100 columns of Markdown pages; tables, code, links and images may."""
    measure = Measure()
    for page in pages:
        fenced = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            measure.out_of += 1
            if line.lstrip().startswith("```"):
                fenced = not fenced
            free = fenced or line.lstrip().startswith("|") or re.search(r"https?://|\]\(", line)
            if len(line) > COLUMNS and not free:
                measure.places.append(f"{page}:{number}: {line[:COLUMNS]}")
    return measure


def docstring_failures(package: Path, sources: list[Source]) -> Measure:
    """Count the documented things that fail ruff's Google docstring rules with D401."""
    command = [
        sys.executable, "-m", "ruff", "check", "--isolated", "--exit-zero", "--no-cache",
        "--output-format=json", "--select=D", "--extend-select=D401", "--ignore=D105,D107",
        "--config=lint.pydocstyle.convention='google'", str(package),
    ]  # fmt: skip
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    failures: dict[tuple[str, int], str] = {}
    for failure in json.loads(found.stdout):
        key = (failure["filename"], failure["location"]["row"])
        failures.setdefault(key, f"{failure['code']} {failure['message']}")
    places = [f"{name}:{row}: {text}" for (name, row), text in sorted(failures.items())]
    documented = sum(
        1 for source in sources for node in source.documented() if ast.get_docstring(node)
    )
    return Measure(places, documented)


def riddles(sources: Iterable[Source]) -> Measure:
    """Count the words of this project's old style per 1000 words of docstrings."""
    measure = Measure(per=1000)
    for source in sources:
        for docstring in source.docstrings():
            text = str(docstring.value)
            measure.out_of += len(re.findall(r"[A-Za-z]+", text))
            for match in re.finditer(rf"\b(?:{WORDS})\b", text):
                line = docstring.lineno + text.count("\n", 0, match.start())
                whole = text.splitlines()[text.count("\n", 0, match.start())]
                measure.places.append(source.place(line, f"[{match[0]}] {whole.strip()}"))
    return measure


def functions(source: Source) -> Iterator[Definition]:
    """Yield the functions and methods."""
    for node in ast.walk(source.tree):
        if isinstance(node, Definition):
            yield node


def long_functions(sources: Iterable[Source]) -> Measure:
    """Count the functions over 60 lines, decorators and docstring not counted."""
    measure = Measure()
    for source in sources:
        for function in functions(source):
            lines = (function.end_lineno or 0) - function.lineno + 1
            first = function.body[0]
            if ast.get_docstring(function):
                lines -= (first.end_lineno or 0) - first.lineno + 1
            if lines > FUNCTION_LINES:
                measure.places.append(source.place(function.lineno, f"{function.name} ({lines})"))
    return measure


def long_modules(sources: Iterable[Source]) -> Measure:
    """Count the modules over 400 lines."""
    measure = Measure()
    for source in sources:
        measure.out_of += 1
        lines = len(source.text.splitlines())
        if lines > MODULE_LINES:
            measure.places.append(source.place(1, f"{lines} lines"))
    return measure


def typed(sources: Iterable[Source]) -> Measure:
    """Count the functions all of whose arguments and results have types."""
    measure = Measure()
    for source in sources:
        for function in functions(source):
            measure.out_of += 1
            given = function.args
            arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            arguments += [one for one in (given.vararg, given.kwarg) if one]
            names = {"self", "cls", "mcs"}
            if function.returns and all(one.annotation or one.arg in names for one in arguments):
                measure.places.append(source.place(function.lineno, function.name))
    return measure


def built_in_errors(sources: Iterable[Source]) -> Measure:
    """Count the places that raise a bare built-in error."""
    measure = Measure()
    for source in sources:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Raise) or node.exc is None:
                continue
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(raised, ast.Name) and raised.id in ERRORS:
                measure.places.append(source.place(node.lineno, ast.unparse(node)[:COLUMNS]))
    return measure


def imports(source: Source, modules: set[str], name: str) -> set[str]:
    """Return the package's modules that a module imports when it is imported itself."""
    found: set[str] = set()
    waiting: list[ast.stmt] = list(source.tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".") + (["_"] if source.path.name == "__init__.py" else [])
                base = ".".join([*parts[: -node.level], *([base] if base else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If):
            checking = "TYPE_CHECKING" in ast.unparse(node.test)
            waiting += node.orelse if checking else [*node.body, *node.orelse]
        elif isinstance(node, ast.Try):
            waiting += [*node.body, *node.orelse, *node.finalbody]
            waiting += [one for handler in node.handlers for one in handler.body]
    return (found & modules) - {name}


def circles(package: Path, sources: list[Source]) -> Measure:
    """Count the groups of modules that import one another in a circle, at import time."""
    by_name: dict[str, Source] = {}
    for source in sources:
        parts = source.path.relative_to(package.parent).with_suffix("").parts
        by_name[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = source
    needs = {name: imports(source, set(by_name), name) for name, source in by_name.items()}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(needs[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += needs[name]
        return seen

    reach = {name: reached(name) for name in needs}
    groups = {
        frozenset(other for other in seen if name in reach[other])
        for name, seen in reach.items()
        if name in seen
    }
    return Measure([", ".join(sorted(group)) for group in groups])


def code_lines(sources: Iterable[Source]) -> int:
    """Count the lines that are neither blank nor only a comment."""
    return sum(
        1
        for source in sources
        for line in source.text.splitlines()
        if line.strip() and not line.strip().startswith("#")
    )


def pythons_and_systems(root: Path) -> str:
    """Return the Pythons and the systems that the workflows name."""
    text = "".join(path.read_text() for path in sorted((root / ".github/workflows").glob("*.yml")))
    minors = sorted({int(minor) for minor in re.findall(r"""["']3\.(\d+)["']""", text)})
    systems = sorted(set(re.findall(r"(ubuntu|windows|macos)-", text)))
    return f"{len(minors)} ({', '.join(f'3.{minor}' for minor in minors)}); {', '.join(systems)}"


def kept(root: Path) -> str:
    """Return which of the things that a reader looks for in a project are there."""
    found = [name for name, place in KEPT.items() if (root / place).exists()]
    return ", ".join(found) or "none"


def guides(root: Path) -> str:
    """Return the length of the guide for contributors, and the number of how-to guides."""
    pages = sorted((root / "docs/extending").glob("*.md"))
    own, theirs = (
        sum(len(page.read_text(encoding="utf-8").splitlines()) for page in some if page.exists())
        for some in ([root / "CONTRIBUTING.md"], pages)
    )
    return f"{own} lines, and {len(pages)} pages of {theirs} lines"


def measure_all(root: Path, package: Path, tests: Path) -> dict[str, Measure | str]:
    """Measure a repository.

    Args:
        root: the repository; its Markdown pages are README.md, CONTRIBUTING.md and those in docs/.
        package: the package's folder, below root.
        tests: the tests' folder.
    """
    sources = [Source.read(path) for path in sorted(package.rglob("*.py"))]
    test_sources = [Source.read(path) for path in sorted(tests.rglob("*.py"))]
    further = [
        Source.read(path)
        for folder in ("tools", "benchmarks", "examples")
        for path in sorted((root / folder).rglob("*.py"))
    ]
    pages = [page for page in (root / "README.md", root / "CONTRIBUTING.md") if page.exists()]
    pages += sorted((root / "docs").rglob("*.md"))
    ratio = code_lines(test_sources) / max(1, code_lines(sources))
    lines = long_lines([*sources, *test_sources, *further])
    return {
        "code": lines["code"],
        "comments": lines["comments"],
        "docstrings": lines["docstrings"],
        "docs": long_lines_of_pages(pages),
        "D": docstring_failures(package, sources),
        "words": riddles(sources),
        "functions": long_functions([*sources, *further]),
        "circles": circles(package, sources),
        "typed": typed(sources),
        "errors": built_in_errors(sources),
        "modules": long_modules(sources),
        "tests": f"{ratio:.2f}",
        "pythons": pythons_and_systems(root),
        "kept": kept(root),
        "guides": guides(root),
    }


LABELS = {
    "code": f"lines over {COLUMNS} columns: code",
    "comments": f"lines over {COLUMNS} columns: comments",
    "docstrings": f"lines over {COLUMNS} columns: docstrings",
    "docs": f"lines over {COLUMNS} columns: pages, without tables and links",
    "D": "docstrings that fail ruff's D (google, D401)",
    "words": f"words per 1000 in docstrings: {WORDS.replace('|', ', ')}",
    "functions": f"functions over {FUNCTION_LINES} lines",
    "circles": "import circles",
    "typed": "functions with all their types",
    "errors": "bare built-in errors raised",
    "modules": f"modules over {MODULE_LINES} lines",
    "tests": "lines of tests per line of the package",
    "pythons": "Pythons and systems in CI",
    "kept": "docs site, publish workflow, security policy, issue forms, code of conduct",
    "guides": "CONTRIBUTING, and docs/extending",
}


def main() -> None:
    """Print the table, or with --list the places behind one of its rows."""
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("below", nargs="?", default="", help="with --list: only below this path")
    parser.add_argument("--root", type=Path, default=root, help="the repository (this one)")
    parser.add_argument("--package", default="src/vrdir", help="its package's folder")
    parser.add_argument("--tests", default="tests", help="its tests' folder")
    rows = [name for name in LABELS if name not in ("tests", "pythons", "kept", "guides")]
    parser.add_argument("--list", choices=rows, help="list the places behind this row")
    given = parser.parse_args()
    root = given.root.resolve()
    found = measure_all(root, root / given.package, root / given.tests)
    if given.list:
        row = found[given.list]
        places = row.places if isinstance(row, Measure) else []
        short = [place.replace(f"{root}/", "") for place in places]
        for place in short:
            if given.below in place.split(":")[0]:
                print(place)
        return
    print("| what | measured |\n|---|---|")
    for name, value in found.items():
        print(f"| {LABELS[name]} | {value} |")
    words = found["words"]
    if isinstance(words, Measure) and words.places:
        counts = Counter(place.split("[", 1)[1].split("]")[0] for place in words.places)
        print("\nwords: " + ", ".join(f"{word} {count}" for word, count in counts.most_common()))


if __name__ == "__main__":
    main()
