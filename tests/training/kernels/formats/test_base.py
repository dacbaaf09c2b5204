"""Names of dtypes, which are one for all formats."""

import pytest

from training.kernels.formats.base import dtype_name


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("torch.float32 FLOAT float", "F32"),
        ("torch.float64 DOUBLE", "F64"),
        ("torch.float16 FLOAT16", "F16"),
        ("torch.bfloat16 BFLOAT16", "BF16"),
        ("torch.int8 INT8 torch.qint8", "I8"),
        ("torch.uint8 UINT8 torch.quint8", "U8"),
        ("torch.int64 INT64", "I64"),
        ("torch.bool BOOL", "BOOL"),
        ("torch.float8_e4m3fn FLOAT8E4M3FN", "F8_E4M3FN"),
        ("FLOAT4E2M1", "F4_E2M1"),
        ("torch.complex64 COMPLEX64", "C64"),
        ("torch.sparse_coo", "SPARSE_COO"),
    ],
)
def test_a_dtype_has_one_name(names: str, expected: str) -> None:
    assert {dtype_name(name) for name in names.split()} == {expected}
