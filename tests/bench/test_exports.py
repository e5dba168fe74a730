"""The figures of exports."""

import numpy as np
import pytest

from bench.exports import data, measure


def test_each_format_is_measured_from_documents_columns_and_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    series = data(np.random.default_rng(1))
    assert len(series) == 6
    for name, made in series.items():
        rates = measure(name, made[:400], 200)
        assert len(rates) == 7
        assert min(rates.values()) > 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 * 7
    assert all(line.startswith("| ") and line.count("|") == 6 for line in lines)
