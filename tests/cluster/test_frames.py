"""The function for pandas frames, in Dask and in Spark themselves where they are installed."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.conftest import photo

from vrdir.cluster.datasets import added_columns, map_in_pandas
from vrdir.errors import DataError
from vrdir.restoring.restorer import Restorer

pandas = pytest.importorskip("pandas")
arrow = pytest.importorskip("pyarrow")
PAGE = Path(__file__).parents[2] / "docs" / "cluster.md"


def frame() -> Any:
    return pandas.DataFrame({"id": range(4), "image": [photo(1), photo(2), b"no image", photo(3)]})


def check(rows: Any, weights: Path | str) -> None:
    rows = rows.sort_values("id").to_dict("records")
    restorer = Restorer(weights, "cpu")
    assert list(rows[0]) == ["id", "image", *added_columns()]
    for row, given in zip(rows, frame()["image"], strict=True):
        if row["id"] == 2:
            assert bytes(row["image"]) == given
            assert "is not an image" in row["vrdir_error"]
            assert pandas.isna(row["vrdir_noise"])
        else:
            assert bytes(row["image"]) == restorer(given)
            assert row["vrdir_error"] == ""
            assert row["vrdir_noise"] >= 0


def block(word: str) -> str:
    """Return the block of Python in docs/cluster.md that has a word in it."""
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (found,) = [text for text in code if word in text]
    return found


def test_pandas(tiny: Path) -> None:
    parts = [frame().iloc[:2], frame().iloc[2:]]
    function = map_in_pandas("image", weights=str(tiny), device="cpu")
    check(pandas.concat(function(parts)), tiny)
    (nothing,) = function([frame().iloc[:0]])
    assert list(nothing.columns) == ["id", "image", *added_columns()]
    with pytest.raises(DataError, match="no column 'image'; the columns are: id, content"):
        next(function([frame().rename(columns={"image": "content"})]))


def test_types_of_columns(tiny: Path) -> None:
    function = map_in_pandas("image", weights=str(tiny), device="cpu")
    kind = pandas.ArrowDtype(arrow.binary())
    (bad,) = function([frame().astype({"image": kind}).iloc[2:3]])
    assert bad["image"].dtype == kind
    assert [bad[name].dtype for name in added_columns()[:-1]] == [float] * 4


def test_dask(tmp_path: Path) -> None:
    pytest.importorskip("dask", reason="Dask is not installed: pip install 'dask[dataframe]'")
    frame().to_parquet(tmp_path / "photos.parquet")
    exec(block("dask").replace("s3://bucket", str(tmp_path)), {})
    written = pandas.read_parquet(tmp_path / "clear")
    check(written, "small")
    assert written["vrdir_noise"].dtype == float


@pytest.fixture
def spark(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A session of Spark on this machine, with a core."""
    sql = pytest.importorskip("pyspark.sql", reason="Spark is not installed: pip install pyspark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java: apt install default-jre-headless")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    session = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    made = session.getOrCreate()
    yield made
    made.stop()


def test_spark(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "foggy").mkdir()
    given = {f"{number}.jpg": photo(number, "JPEG") for number in range(4)} | {"4.jpg": b"none"}
    for name, content in given.items():
        (tmp_path / "foggy" / name).write_bytes(content)
    exec(block("spark").replace("s3a://bucket", str(tmp_path)), {})
    restorer = Restorer("small", "cpu")
    rows = pandas.read_parquet(tmp_path / "clear").to_dict("records")
    assert {Path(row["path"]).name for row in rows} == given.keys()
    for row in rows:
        content = given[Path(row["path"]).name]
        bad = content == b"none"
        assert row["content"] == (content if bad else restorer(content))
        assert ("is not an image" in row["vrdir_error"]) == bad
        assert pandas.isna(row["vrdir_noise"]) == bad
    nothing = spark.createDataFrame([(1, None)], "id long, image binary")
    schema = "id long, image binary, vrdir_haze double, vrdir_noise double, vrdir_rain double, "
    schema += "vrdir_changed double, vrdir_error string"
    (row,) = nothing.mapInPandas(map_in_pandas("image", weights="small"), schema).collect()
    assert row.image is row.vrdir_noise is None
    assert "NoneType" in row.vrdir_error
