"""What the kernels in Gluon, Triton's lower level, share: descriptors and elementwise functions."""

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

_TYPES = {torch.int8: gl.int8, torch.bfloat16: gl.bfloat16}
_HOPPER = (9, 0)


def on_hopper(tensor: Tensor) -> bool:
    """Whether the tensor is on a GPU whose instructions these kernels are made of."""
    return tensor.is_cuda and torch.cuda.get_device_capability(tensor.device) == _HOPPER


def blocks(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A descriptor that moves so many rows and columns of a matrix at once."""
    layout = gl.NVMMASharedLayout.get_default_for([rows, columns], _TYPES[matrix.dtype])
    return TensorDescriptor.from_tensor(matrix, [rows, columns], layout)


@gluon.jit
def gelu_by_tanh(x):  # type: ignore[no-untyped-def]
    """GELU by a GPU's own tanh, as matmul_tile's where it is fast."""
    return gelu_of_half(0.5 * x)


@gluon.jit
def nearest_int8_pairs(even, odd):  # type: ignore[no-untyped-def]
    """Pairs of the nearest int8 within +-127, by float16 as in int8_epilogue."""
    return gl.inline_asm_elementwise(
        """
        {
            .reg .b32 x, most, least, no_fraction;
            mov.b32 most, 0x57f057f0;         // 127
            mov.b32 least, 0xd7f0d7f0;        // -127
            mov.b32 no_fraction, 0x66006600;  // 1536
            cvt.rn.f16x2.f32 x, $2, $1;
            min.f16x2 x, x, most;
            max.f16x2 x, x, least;
            add.rn.f16x2 x, x, no_fraction;
            prmt.b32 x, x, x, 0x0020;
            cvt.u16.u32 $0, x;
        }
        """,
        "=h,f,f",
        [even, odd],
        dtype=gl.int16,
        is_pure=True,
        pack=1,
    )


@gluon.jit
def gelu_of_half(half):  # type: ignore[no-untyped-def]
    """`gelu_by_tanh` of twice the given, for those who scale by a number anyway."""
    u = half * (1.5957691216057308 + 0.285419265090401 * half * half)
    tanh = gl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=f,f", [u], dtype=gl.float32, is_pure=True, pack=1
    )
    return half + half * tanh
