"""A weight that a later kernel reads, on its way into the L2 cache meanwhile.

In a chain of short kernels on few rows, every weight is used once a pass, and all of them together
are about as large as the L2 cache: most have left it by the time that they are used again. A kernel
that waits for its weight waits for memory, several times longer than for the cache. Its own early
loads hide that only as far as it starts early. So each program asks for its share of the weight of
a kernel some launches later, with one instruction, and does not wait for it.

Source: PTX ISA, "cp.async.bulk.prefetch".
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

# Of a line of the cache; the instruction takes multiples of fewer.
_LINE = tl.constexpr(128)
_BYTES = 16


def ahead_options(weight: Tensor | None) -> dict[str, Any]:
    """The arguments for `fetch_ahead` of a weight, or of none where it cannot be asked for."""
    size = 0 if weight is None else weight.numel() * weight.element_size()
    if weight is None or not weight.is_contiguous() or weight.data_ptr() % _BYTES or size % _BYTES:
        return {"ahead_ptr": None, "ahead_bytes": 0}
    return {"ahead_ptr": weight, "ahead_bytes": size}


@triton.jit  # type: ignore[untyped-decorator]
def fetch_ahead(ahead_ptr, ahead_bytes, PDL: tl.constexpr):  # type: ignore[no-untyped-def]
    """This program's share of the weight, if there is one and the GPU can."""
    if PDL and ahead_ptr is not None:
        programs = tl.num_programs(0) * tl.num_programs(1)
        program = tl.program_id(0) + tl.program_id(1) * tl.num_programs(0)
        share = tl.cdiv(tl.cdiv(ahead_bytes, programs), _LINE) * _LINE
        first = program * share
        if first < ahead_bytes:
            tl.inline_asm_elementwise(
                """
                {
                    .reg .pred first;
                    .reg .b32 thread;
                    mov.u32 thread, %tid.x;
                    setp.eq.u32 first, thread, 0;
                    @first cp.async.bulk.prefetch.L2.global [$1], $2;
                    mov.u32 $0, 0;
                }
                """,
                "=r,l,r",
                [ahead_ptr.to(tl.int64) + first, tl.minimum(share, ahead_bytes - first)],
                dtype=tl.int32,
                is_pure=False,
                pack=1,
            )
