"""Let the documentation site link to files outside docs/, as the pages do in the repository.

MkDocs runs this (mkdocs.yml, `hooks`). Each file outside docs/ that a page links to becomes a page
of the site, below repository/: Markdown unchanged, other text as code, pictures unchanged. So the
site is complete wherever it is built, and a link to a missing file stops a strict build.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PICTURES = {".jpg", ".jpeg", ".png", ".svg", ".webp", ".gif"}
LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^()\s#]+)(#[^()\s]*)?(\))")
IN_NAVIGATION = tuple(f"src/vrdir/weights/{name}/README.md" for name in ("small", "field"))
log = logging.getLogger("mkdocs.vrdir")


def page_of(path: str) -> str:
    """Return the site's file for a file of the repository, both relative, with "/"."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.endswith("README.md"):  # MkDocs would take it for the index of its section
        path = path.removesuffix("/README.md").removesuffix("README.md") or "readme"
        return f"repository/{path}.md"
    is_page = path.endswith(".md") or Path(path).suffix.lower() in PICTURES
    return f"repository/{path}" if is_page else f"repository/{path}.md"


def linked(text: str, path: str) -> dict[str, str]:
    """Return the targets of a page's relative links, each with its path in the repository."""
    found = {}
    for match in LINK.finditer(outside_code(text)):
        target = match[2]
        found[target] = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return found


def outside_code(text: str) -> str:
    """Return a page's text without its code blocks and code spans, of the same length."""
    blank = lambda match: re.sub(r"[^\n]", " ", match[0])  # noqa: E731
    return re.sub(r"^```.*?^```|`[^`\n]+`", blank, text, flags=re.MULTILINE | re.DOTALL)


def rewritten(text: str, path: str) -> str:
    """Return a page's text with its relative links leading to the site's files."""
    here = posixpath.dirname(page_of(path)) or "."
    plain = outside_code(text)
    pieces, end = [], 0
    for match in LINK.finditer(plain):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[2]))
        pieces.append(text[end : match.start()])
        end = match.end()
        if target.startswith(".."):  # GitHub's own pages
            pieces.append(text[match.start() : end])
            continue
        page = posixpath.relpath(page_of(target), here)
        pieces.append(f"{match[1]}{page}{match[3] or ''}{match[4]}")
    return "".join([*pieces, text[end:]])


def as_page(path: str) -> str:
    """Return the site's page for a text file of the repository."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return rewritten(text, path)
    language = {".py": "python", ".yml": "yaml", ".yaml": "yaml", ".toml": "toml"}
    fence = f"````{language.get(Path(path).suffix, 'text')}\n{text}\n````\n"
    return f"# {path}\n\n{fence}"


def on_files(files: Files, *, config: Any) -> Files:
    """Add the files outside docs/ that pages link to, and those that these link to."""
    waiting = [f"docs/{file.src_uri}" for file in files if file.is_documentation_page()]
    seen = set(waiting)
    pages = {page_of(path): path for path in IN_NAVIGATION}
    named = [page for page in pages_named(config["nav"]) if page.startswith("repository/")]
    waiting += [pages.get(page, page.removeprefix("repository/")) for page in named]
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            if not (ROOT / path).is_file():
                log.warning("a page links to %s, which is not a file of the repository", path)
                continue
            add(path, files, config)
        if not path.endswith(".md"):
            continue
        for target in linked((ROOT / path).read_text(encoding="utf-8"), path).values():
            if target not in seen and not target.startswith((".", "docs/")):
                seen.add(target)
                waiting.append(target)
    return files


def pages_named(nav: Any) -> list[str]:
    """Return the pages that the navigation names."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav or []
    return [page for part in parts for page in pages_named(part)]


def add(path: str, files: Files, config: Any) -> None:
    """Add one file of the repository to the site."""
    uri = page_of(path)
    if files.get_file_from_path(uri) is not None:
        return
    if Path(path).suffix.lower() in PICTURES:
        files.append(File.generated(config, uri, abs_src_path=os.fspath(ROOT / path)))
    else:
        files.append(File.generated(config, uri, content=as_page(path)))


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Rewrite the links of a page in docs/."""
    if page.file.src_uri.startswith("repository/"):
        return markdown
    return rewritten(markdown, f"docs/{page.file.src_uri}")
