"""How products are shared out."""

import pytest

from kernels.matmul_tile import PROCESSORS, stripes_for


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(1, 128), (2048, 1536), (5000, 1152), (8192, 2048), (8448, 768), (20000, 512)],
)
def test_stripes_have_all_rows_and_shares_all_tiles(rows: int, columns: int) -> None:
    stripes = stripes_for(rows, columns, 128, 128)
    assert (stripes.number - 1) * 128 < rows <= stripes.number * 128
    assert (stripes.shares - 1) * stripes.tiles < columns // 128 <= stripes.shares * stripes.tiles
    assert stripes.number * stripes.shares <= max(PROCESSORS, stripes.number)
