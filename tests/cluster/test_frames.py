"""The function for pandas frames, in Dask and in Spark themselves where they are installed."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.conftest import photo

from vrdir.cluster.datasets import added_columns, map_in_pandas
from vrdir.restoring.restorer import Restorer

pandas = pytest.importorskip("pandas")


def frame() -> Any:
    return pandas.DataFrame({"id": range(4), "image": [photo(1), photo(2), b"no image", photo(3)]})


def check(rows: Any, tiny: Path) -> None:
    rows = rows.sort_values("id").to_dict("records")
    restorer = Restorer(tiny, "cpu")
    assert list(rows[0]) == ["id", "image", *added_columns()]
    for row, given in zip(rows, frame()["image"], strict=True):
        if row["id"] == 2:
            assert bytes(row["image"]) == given
            assert "is not an image" in row["vrdir_error"]
        else:
            assert bytes(row["image"]) == restorer(given)
            assert row["vrdir_error"] == ""


def test_pandas(tiny: Path) -> None:
    parts = [frame().iloc[:2], frame().iloc[2:]]
    check(pandas.concat(map_in_pandas("image", weights=str(tiny), device="cpu")(parts)), tiny)


def test_dask(tiny: Path) -> None:
    dask = pytest.importorskip("dask.dataframe")
    function = map_in_pandas("image", weights=str(tiny), device="cpu")
    from dask import config

    with config.set({"dataframe.convert-string": False}):  # or Dask takes the images for text
        parts = dask.from_pandas(frame(), npartitions=2)
        restored = parts.map_partitions(lambda part: next(function([part])))
        check(restored.compute(scheduler="threads"), tiny)


def test_spark(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    session = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = session.getOrCreate()
    try:
        function = map_in_pandas("image", weights=str(tiny), device="cpu")
        schema = "id long, image binary, vrdir_haze double, vrdir_noise double, "
        schema += "vrdir_rain double, vrdir_changed double, vrdir_error string"
        given = spark.createDataFrame(frame(), "id long, image binary").repartition(2)
        check(given.mapInPandas(function, schema).toPandas(), tiny)
    finally:
        spark.stop()
