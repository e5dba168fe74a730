"""The comparison of blocks with other formats."""

import numpy as np
import pytest

from bench.blocks import documents, from_planes, measure, planes, synthetic


def test_every_format_is_measured_from_the_same_readings(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    ts, values = synthetic(rng, 1000, 2)
    measure("1 Hz", documents(rng, ts[:300], values[:300]), 150)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert all(line[:2] == ["1 Hz", "150"] and len(line) == 6 for line in lines)
    found = {line[2]: line[3] for line in lines}
    assert {"blocks", "byte planes, zlib", "blocks and heads, documents", "blocks, ts and value only"} <= found.keys()
    assert 0 < float(found["blocks"]) < float(found["blocks and heads, documents"]) < 12


def test_byte_planes_come_back() -> None:
    array = np.array([5, -(2**40), 2**40, 0, -1])
    assert from_planes(planes(array)).tolist() == array.tolist()
