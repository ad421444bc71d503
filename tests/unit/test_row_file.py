"""Rows on disk are those that were put there; where no file can be had, they stay in memory."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from stream.row_file import PAGE_BYTES, RowFile, StoredRows


def test_rows_come_back_one_by_one_and_cannot_be_written() -> None:
    g, file = np.random.default_rng(0), RowFile()
    arrays = [g.normal(size=(24, 7, rows)).astype(dtype) for rows, dtype in ((35, np.float32), (9, np.float64))]
    stored = [file.put(array) for array in arrays]
    for array, rows in zip(arrays, stored, strict=True):
        assert isinstance(rows, StoredRows)
        assert (rows.shape, rows.dtype, len(rows)) == (array.shape, array.dtype, 24)
        for row in (23, 0, 7):
            np.testing.assert_array_equal(rows[row], array[row])
            assert not rows[row].flags.writeable
        for row in (-1, 24):
            with pytest.raises(IndexError):
                rows[row]


def test_small_tables_stay_where_they_are() -> None:
    small = np.zeros(PAGE_BYTES - 1, np.uint8)
    assert RowFile().put(small) is small


def test_without_a_directory_tables_stay_in_memory_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def nowhere() -> BinaryIO:
        raise FileNotFoundError("no usable temporary directory")

    file, table = RowFile(nowhere), np.zeros((24, 1000))
    with caplog.at_level(logging.WARNING):
        assert file.put(table) is table
        assert file.put(table) is table
    assert ["no usable temporary directory" in record.message for record in caplog.records] == [True]


def test_a_file_that_lost_its_end_is_an_error_and_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    rows = RowFile(lambda: path.open("w+b")).put(np.ones((24, 1000)))
    assert isinstance(rows, StoredRows)
    os.truncate(path, 10_000)
    np.testing.assert_array_equal(rows[0], np.ones(1000))
    with pytest.raises(OSError, match="ends after 2000"):
        rows[1]
