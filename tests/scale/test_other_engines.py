"""One callable in several engines: each gives what the model says, row by row. Those that are absent are skipped."""

import shutil
import sys
from pathlib import Path
from typing import Any

import polars
import pytest
from tests.test_answers import LEFT, RIGHT
from tests.test_answers import folder as folder

import towers
from towers.scale import Scorer

PAIRS = [(left, right) for left in (*LEFT, "") for right in RIGHT] * 3
ROWS = {"sentence1": [left for left, _ in PAIRS], "sentence2": [right for _, right in PAIRS]}


def check(folder: Path, rows: list[tuple[Any, ...]]) -> None:
    """Rows (sentence1, sentence2, probability, problem), in any order."""
    model = towers.load(folder)
    assert sorted(row[:2] for row in rows) == sorted(PAIRS)
    for left, right, probability, problem in rows:
        if left:
            assert probability == pytest.approx(model.score(left, right), abs=1e-6)
            assert problem is None
        else:
            assert probability is None
            assert problem == "sentence1 is empty"


def test_polars(folder: Path) -> None:
    frame = polars.DataFrame(ROWS)
    schema = {**frame.schema, "probability": polars.Float32, "problem": polars.String}
    lazy = frame.lazy().map_batches(Scorer(folder), schema=schema)
    check(folder, lazy.collect().rows())
    assert lazy.filter(polars.col("problem").is_not_null()).collect().height == 9


def test_duckdb(folder: Path) -> None:
    """Its batches go through the callable one by one, and back into its next query."""
    duckdb, pyarrow = pytest.importorskip("duckdb"), pytest.importorskip("pyarrow")
    table = pyarrow.table(ROWS)
    with duckdb.connect() as connection, connection.cursor() as other:  # a connection has one open result
        reader = connection.from_arrow(table).to_arrow_reader(16)
        schema = Scorer(folder)(table.slice(0, 0)).schema
        scored = pyarrow.RecordBatchReader.from_batches(schema, Scorer(folder).each(reader))
        check(folder, other.from_arrow(scored).fetchall())


@pytest.mark.slow
def test_spark(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sql = pytest.importorskip("pyspark.sql")
    pytest.importorskip("pyarrow")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    monkeypatch.setenv("PYTHONPATH", str(Path(towers.__file__).parent.parent))
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    builder = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.driver.memory", "512m").getOrCreate()
    try:
        frame = spark.createDataFrame(PAIRS, ["sentence1", "sentence2"]).coalesce(1)  # one worker
        scored = frame.mapInArrow(
            Scorer(folder).each, "sentence1 string, sentence2 string, probability float, problem string"
        )
        check(folder, [tuple(row) for row in scored.collect()])
    finally:
        spark.stop()
