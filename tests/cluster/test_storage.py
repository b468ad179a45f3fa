"""Addresses: what is listed, read and written there, and what fails how."""

import gc
import hashlib
import http.server
import importlib.util
import threading
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.cluster.conftest import forget, photo

from vrdir.cluster import addresses, attempts, file_systems, listing, storage
from vrdir.cluster.attempts import PassingError
from vrdir.cluster.listing import Source
from vrdir.errors import (
    DataError,
    InputError,
    MissingFileError,
    MissingPackageError,
    NotPermittedError,
)

ETAG = hashlib.md5(b"content").hexdigest()  # S3's, of small objects


def test_addresses_are_urls() -> None:
    assert addresses.is_address("s3://bucket/key")
    assert addresses.is_address("https://host/photo.jpg")
    for path in ("photos", "/photos", "C:\\photos", "C:/photos", "a:b"):
        assert not addresses.is_address(path)


def test_shown_addresses_contain_no_secrets() -> None:
    given = "https://user:secret@host:81/a.jpg?X-Amz-Signature=abc"
    assert addresses.shown(given) == "https://host:81/a.jpg"


def test_invalid_address_raises(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\ns3://user:secret@[bucket/b.png\n")
    for given in ("s3://[bucket/a.png", str(tmp_path / "list.txt")):
        with pytest.raises(InputError, match=r"^s3://\.\.\. is not a valid") as raised:
            list(listing.sources([given]))
        assert "secret" not in str(raised.value)


def test_folder_of_a_bucket_is_listed_with_names_and_sizes(bucket: str) -> None:
    for name in ("a/1.png", "a/b/2.jpg", "3.tif", "a/notes.txt", ".hidden/4.png"):
        storage.write(f"{bucket}/in/{name}", b"content")
    storage.write(f"{bucket}/inside.png", b"of another folder")
    others: Counter[str] = Counter()
    found = set(listing.sources([f"{bucket}/in"], others))
    assert found == {
        Source(f"{bucket}/in/{name}", name, 7, ETAG) for name in ("a/1.png", "a/b/2.jpg", "3.tif")
    }
    assert others == {".txt": 1}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_in_any_unicode(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("# фото\r\nтуман.png\r\n".encode(encoding))
    assert [source.address for source in listing.sources([str(path)])] == ["туман.png"]
    path.write_bytes("туман.png".encode("koi8-r"))
    with pytest.raises(DataError, match=r"list\.txt is not text in UTF-8 or UTF-16"):
        list(listing.sources([str(path)]))


def test_single_files_patterns_and_lists(bucket: str) -> None:
    for name in ("in/1.png", "in/2.jpg", "in/3.png"):
        storage.write(f"{bucket}/{name}", b"content")
    assert list(listing.sources([f"{bucket}/in/2.jpg"])) == [
        Source(f"{bucket}/in/2.jpg", "2.jpg", 7, ETAG)
    ]
    matching = list(listing.sources([f"{bucket}/in/*.png"]))
    assert [source.name for source in matching] == ["in/1.png", "in/3.png"]
    storage.write(f"{bucket}/list.txt", f"# two\n{bucket}/in/1.png\n\n{bucket}/in/2.jpg\n".encode())
    listed = list(listing.sources([f"{bucket}/list.txt"]))
    assert [source.name for source in listed] == ["in/1.png", "in/2.jpg"]
    storage.write(f"{bucket}/bad.txt", f"{bucket}/in/".encode())
    with pytest.raises(DataError, match="line 1: .* is a folder"):
        list(listing.sources([f"{bucket}/bad.txt"]))


def test_names_stay_below_the_output(bucket: str) -> None:
    listed = f"{bucket}/../../etc/1.png\n{bucket}/a/./../2.png\n"
    storage.write(f"{bucket}/list.txt", listed.encode())
    names = [source.name for source in listing.sources([f"{bucket}/list.txt"])]
    assert names == ["etc/1.png", "a/2.png"]


def test_local_paths_and_file_urls(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "1.png").write_bytes(b"content")
    (tmp_path / "in" / "2.png").write_bytes(b"content")
    for address in (str(tmp_path / "in"), f"file://{tmp_path}/in"):
        assert sorted(source.name for source in listing.sources([address])) == [
            "2.png",
            "sub/1.png",
        ]
    storage.write(f"file://{tmp_path}/out/deep/3.png", b"three")
    assert (tmp_path / "out" / "deep" / "3.png").read_bytes() == b"three"
    assert storage.exists(str(tmp_path / "out" / "deep" / "3.png"))
    assert not storage.exists(str(tmp_path / "out" / "deep"))
    assert [path.name for path in (tmp_path / "out" / "deep").iterdir()] == ["3.png"]


def test_error_names_missing_address(bucket: str) -> None:
    with pytest.raises(MissingFileError, match="s3://.*/none does not exist, or is empty"):
        list(listing.sources([f"{bucket}/none"]))
    with pytest.raises(MissingFileError, match="s3://.*/none.png does not exist"):
        storage.read(f"{bucket}/none.png")
    with pytest.raises(MissingFileError, match="nothing matches"):
        list(listing.sources([f"{bucket}/none/*.png"]))


def test_unknown_addresses_and_missing_packages() -> None:
    with pytest.raises(InputError, match="scheme nfs3:// is not supported; use s3, gs"):
        file_systems.open_storage("nfs3://host/path")
    for scheme, package in (("gs", "gcsfs"), ("az", "adlfs"), ("abfs", "adlfs")):
        if importlib.util.find_spec(package) is None:
            with pytest.raises(MissingPackageError, match=f"need {package}: pip install {package}"):
                file_systems.open_storage(f"{scheme}://bucket/path")


def test_error_of_a_host_that_refuses_the_connection_has_no_secrets() -> None:
    with pytest.raises(PassingError, match=r"^ftp://127\.0\.0\.1:1/photos: .*refused") as raised:
        file_systems.open_storage("ftp://me:secret@127.0.0.1:1/photos")
    assert "secret" not in str(raised.value)


def test_error_names_the_package_of_a_rarer_scheme() -> None:
    if importlib.util.find_spec("paramiko") is not None:
        pytest.skip("paramiko is installed")
    with pytest.raises(MissingPackageError, match=r"with sftp:// need another package .*paramiko"):
        file_systems.open_storage("sftp://host/path")


class Faulty(http.server.BaseHTTPRequestHandler):
    """Answers as a server in trouble does: by the path's first part."""

    asked: ClassVar[Counter[str]] = Counter()
    content = photo(1)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        kind = self.path.split("/")[1]
        if kind == "busy" and self.asked[self.path] < 3:
            self.send_error(503)
            return
        if kind in ("403", "404", "410", "500"):
            self.send_error(int(kind))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        cut = kind == "short" and self.asked[self.path] < 3
        if self.command == "GET":
            self.wfile.write(self.content[: len(self.content) // 2] if cut else self.content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that fails in several ways."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(attempts, "LONGEST_WAIT_S", 0.05)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Faulty.asked.clear()
    yield f"http://user:secret@127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("kind", ["busy", "short"])
def test_temporary_errors_are_retried(faulty: str, kind: str) -> None:
    assert storage.read(f"{faulty}/{kind}/1.png") == Faulty.content
    assert Faulty.asked[f"/{kind}/1.png"] >= 3


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("403", NotPermittedError),
        ("404", MissingFileError),
        ("410", DataError),
        ("500", PassingError),
    ],
)
def test_permanent_errors_contain_no_secrets(
    faulty: str, kind: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as raised:
        storage.read(f"{faulty}/{kind}/1.png")
    assert "secret" not in str(raised.value)
    assert kind == "500" or Faulty.asked[f"/{kind}/1.png"] == 1


def test_wrong_credentials_are_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget()
    with pytest.raises(NotPermittedError, match="access denied; check the credentials") as raised:
        storage.write(f"{bucket}/1.png", b"content")
    assert "\n" not in str(raised.value)
    forget()


class LongList(http.server.BaseHTTPRequestHandler):
    """Lists 5000 objects as S3 does, page by page; a real bucket takes minutes to fill."""

    count = 5000

    def do_GET(self) -> None:
        given = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        start = int(given.get("continuation-token", 0))
        end = min(self.count, start + int(given["max-keys"]))
        entries = "".join(
            f"<Contents><Key>{given['prefix']}{number:0150}.png</Key><Size>{number}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{number}&quot;</ETag>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for number in range(start, end)
        )
        more = end < self.count
        token = f"<NextContinuationToken>{end}</NextContinuationToken>" if more else ""
        content = (
            '<?xml version="1.0"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def test_long_listings_need_little_memory(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # No more than a page is held, so the peak does not grow from page to page.
    monkeypatch.setattr(listing, "PAGE", 250)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), LongList)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    forget()
    gc.collect()  # ends what earlier tests left, which takes memory itself
    listed = listing.sources(["s3://many/in/"])
    sizes = [source.size for source in islice(listed, 1000)]  # loads what the first pages load
    tracemalloc.start()
    held = [0, 0]  # the most in the first and in the second half
    for source in listed:
        sizes.append(source.size)
        half = len(sizes) > 3000
        held[half] = max(held[half], tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    server.shutdown()
    forget()
    assert sizes == list(range(LongList.count))
    assert held[1] < 1.2 * held[0] + 100_000  # the list of sizes itself takes some


def test_kuberay_example_runs_a_command() -> None:
    import shlex

    import typer.main
    import yaml

    from vrdir.cli.app import app

    example = Path(__file__).parents[2] / "deploy" / "kuberay.yaml"
    spec = yaml.safe_load(example.read_text())["spec"]
    program, command, *given = shlex.split(spec["entrypoint"])
    known = typer.main.get_command(app).commands[command]
    known.make_context(command, list(given))  # or it raises a usage error
    assert (program, command) == ("vrdir", "restore")
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    assert all(group["template"]["spec"]["containers"][0]["image"] for group in groups)
