"""What the kernels' benchmark times: each operator at shapes of Cortex-S, and what it is beside."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from kernels import (
    event_attention,
    int8_matmul,
    linear_add,
    norm_linear,
    step_attention,
    window_attention,
)
from kernels.event_attention import EventColumns
from kernels.event_placement import (
    ListedEvents,
    place_events_reference,
    place_events_triton,
)
from kernels.int8_epilogue import Epilogue
from kernels.int8_linear_add import int8_linear_add_triton
from kernels.int8_matmul import int8_matmul_triton
from kernels.int8_norm_linear import int8_norm_linear_triton
from kernels.int8_weight import Int8Weight, quantize_weight
from kernels.linear_add import Rows, linear_add_reference, linear_add_triton
from kernels.norm_linear import Activation, norm_linear_reference, norm_linear_triton
from kernels.quantize_rows import (
    quantize_rows_reference,
    quantize_rows_triton,
    quantize_with_triton,
    rms_norm_quantize_rows_reference,
    rms_norm_quantize_rows_triton,
)
from kernels.token_embedding import token_embedding_reference, token_embedding_triton

EPS = 1e-6
# Cortex-S: width, heads, latents a step, steps of events, steps of the window.
D, H, L, J, W = 512, 8, 8, 8, 32
K = D // H
TOKENS = (182, 4, 9)
# Of activations that a calibrated scale quantises: values of about 1 in 8 bits.
OUT_SCALE = 0.02

Work = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operator at one shape.

    Attributes:
        name: of its row, without the leading "kernel/".
        kernel: the Triton form.
        baselines: other ways to the same result, by name; the first is the plain form.
        bytes: least that must move through memory.
        flops: floating-point operations.
        exact: the same result in float64, to compare with.
        integer: products of 8-bit integers, whose peak is twice that of bfloat16.
    """

    name: str
    kernel: Work
    baselines: Mapping[str, Work]
    bytes: int
    flops: int = 0
    exact: Work | None = None
    integer: bool = field(default=False)


def cases() -> Iterator[Case]:
    """All cases, one after another, so that each frees its memory before the next."""
    yield _tokenizer(65_536)
    for rows in (8, 64, 256, 8192):
        yield _norm_linear(rows, 3 * D, None)
        yield _norm_linear(rows, 4 * D, "gelu")
    for rows in (8, 64, 256, 8192):
        yield _linear_add(rows, D)
        yield _linear_add(rows, 4 * D)
    for events in (4, 16, 64):
        yield _cross_attention(32, events)
    yield _cross_attention(1, 16)
    yield _event_placement(32, 16)
    for samples in (1, 32):
        yield _window_attention(samples)
    for streams in (1, 32, 512):
        yield _step_attention(streams)
    yield _rms_norm_quantize(8192)
    for depth, columns in ((D, 3 * D), (D, D), (D, 4 * D), (4 * D, D)):
        yield _int8_matmul(8192, depth, columns)
    for rows in (8, 64, 256, 2048, 4096, 8192):
        yield _int8_norm_linear(rows, 3 * D, None, None)
        yield _int8_norm_linear(rows, 4 * D, "gelu", None)
        yield _int8_norm_linear(rows, 4 * D, "gelu", OUT_SCALE)
        yield _int8_linear_add(rows, D, None)
        yield _int8_linear_add(rows, 4 * D, None)
        yield _int8_linear_add(rows, 4 * D, OUT_SCALE)


def _bf16(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda").bfloat16()


def _tokenizer(events: int) -> Case:
    u, p, c = (_bf16(rows, D) for rows in TOKENS)
    unit, phase, value = (torch.randint(rows, (events,), device="cuda") for rows in TOKENS)
    gamma = _bf16(D)
    compiled = torch.compile(token_embedding_reference)
    out = torch.empty(events, D, device="cuda", dtype=gamma.dtype)
    wide = u.double(), p.double(), c.double()
    return Case(
        name=f"tokenizer/{events}x{D}",
        kernel=lambda: token_embedding_triton(unit, phase, value, (u, p, c), gamma, EPS),
        baselines={
            "PyTorch": lambda: token_embedding_reference(unit, phase, value, (u, p, c), gamma, EPS),
            "torch.compile": lambda: compiled(unit, phase, value, (u, p, c), gamma, EPS),
            "writing zeros": lambda: out.zero_(),
        },
        bytes=events * (D * 2 + 3 * 8),
        exact=lambda: token_embedding_reference(unit, phase, value, wide, gamma.double(), EPS),
    )


def _norm_linear(rows: int, columns: int, gelu: Activation | None) -> Case:
    """In the model the norm's squares come from the operator before; the baseline has none."""
    x, weight = _bf16(rows, D), _bf16(columns, D) / D**0.5
    squares = x.float().square().unflatten(1, (4, -1)).sum(-1)
    compiled = torch.compile(norm_linear_reference)
    tile = norm_linear.tile_for(rows, columns, D)
    return Case(
        name=f"rmsnorm_linear/{rows}x{D}x{columns}{'_gelu' if gelu else ''}",
        kernel=lambda: norm_linear_triton(x, weight, None, EPS, gelu, squares_MP=squares),
        baselines={
            "F.rms_norm, cuBLAS": lambda: norm_linear_reference(x, weight, None, EPS, gelu),
            "torch.compile": lambda: compiled(x, weight, None, EPS, gelu),
            "cuBLAS alone": lambda: F.linear(x, weight),
            "norming the rows too": lambda: norm_linear_triton(x, weight, None, EPS, gelu),
            "in tiles": lambda: norm_linear_triton(
                x, weight, None, EPS, gelu, squares_MP=squares, config=tile
            ),
        },
        bytes=2 * (rows * D + columns * D + rows * columns),
        flops=2 * rows * D * columns,
        exact=lambda: norm_linear_reference(x.double(), weight.double(), None, EPS, gelu),
    )


def _linear_add(rows: int, depth: int) -> Case:
    x, weight, residual = _bf16(rows, depth), _bf16(D, depth) / depth**0.5, _bf16(rows, D)
    tile = linear_add.tile_for(rows, D, depth)
    return Case(
        name=f"linear_add/{rows}x{depth}x{D}",
        kernel=lambda: linear_add_triton(x, weight, residual).x,
        baselines={
            "cuBLAS": lambda: linear_add_reference(x, weight, residual).x,
            "in tiles": lambda: linear_add_triton(x, weight, residual, config=tile).x,
        },
        bytes=2 * (rows * depth + D * depth + 2 * rows * D),
        flops=2 * rows * depth * D,
        exact=lambda: linear_add_reference(x.double(), weight.double(), residual.double()).x,
    )


def _events(samples: int, steps: int, events: int) -> EventColumns:
    """So many events in every step."""
    shape = samples, steps, events
    unit, phase, value = (torch.randint(rows, shape, device="cuda") for rows in TOKENS)
    count = torch.full((samples, steps), events, device="cuda")
    return EventColumns(unit, phase, value, torch.ones(shape, dtype=torch.bool).cuda(), count)


def _cross_attention(samples: int, events: int) -> Case:
    """A window of W steps with so many events each.

    SDPA and FlexAttention read keys and values an event, and their weights are softmax.
    """
    n_rows = TOKENS[0] * TOKENS[1] * TOKENS[2]
    columns, places = _events(samples, W, events), TOKENS[1:]
    weights = torch.rand(n_rows, H, J, L, device="cuda").bfloat16() / 32
    tables = event_attention.EventTables(weights, _bf16(n_rows, H, K))
    wide = event_attention.EventTables(*(table.double() for table in tables))
    q, k, v = _bf16(samples, H, W * L, K), *(_bf16(samples, H, W * events, K) for _ in "kv")
    at, age = torch.arange(W, device="cuda"), torch.arange(W, device="cuda")[:, None]
    seen = (at <= age) & (at > age - J)
    mask = seen.repeat_interleave(L, 0).repeat_interleave(events, 1)
    pairs = samples * H * int(seen.sum()) * L * events

    def inside(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        steps = query // L - key // events
        return (steps >= 0) & (steps < J)

    reads = event_attention.event_reads_triton
    reference = event_attention.event_reads_reference
    return Case(
        name=f"cross_attention/{samples}x{W * events}",
        kernel=lambda: reads(columns, places, tables, "sigmoid"),
        baselines={
            "PyTorch": lambda: reference(columns, places, tables, "sigmoid"),
            "masked SDPA": lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
            "FlexAttention": flex_attention_work(q, k, v, inside),
        },
        bytes=samples * W * (events * (D + H * J * L) * 2 + L * D * 2),
        flops=2 * pairs * K,
        exact=lambda: reference(columns, places, wide, "sigmoid"),
    )


def _event_placement(samples: int, events: int) -> Case:
    """Windows of W steps with about so many events each; what is compared is how many each has."""
    n_events, bins = samples * W * events, TOKENS[1]
    time_bin = torch.randint(W * bins, (samples, W * events)).sort(1).values.flatten()
    columns = torch.randint(TOKENS[0], (n_events,)), time_bin, torch.randint(1, 9, (n_events,))
    start = torch.arange(samples + 1) * W * events
    listed = ListedEvents(*(column.int().cuda() for column in (*columns, start)))
    options = {"steps": W, "bins_per_step": bins, "places": W * events}
    return Case(
        name=f"event_placement/{samples}x{W * events}",
        kernel=lambda: place_events_triton(listed, **options).count_BS,
        baselines={"PyTorch": lambda: place_events_reference(listed, **options).count_BS},
        bytes=n_events * 2 * 3 * 4 + samples * W * W * events,
        exact=lambda: place_events_reference(listed, **options).count_BS,
    )


def _window_attention(samples: int) -> Case:
    """A window's W steps, and the start before them; SDPA and FlexAttention have it in place."""
    q, k, v = _bf16(samples, W, L, 3, H, K).unbind(-3)
    start = window_attention.KeysValues(_bf16(L, H, K), _bf16(L, H, K))
    whole = (
        torch.cat((before.expand(samples, 1, -1, -1, -1), x), 1)
        for before, x in zip(start, (k, v), strict=True)
    )
    q_flat, k_flat, v_flat = (x.flatten(1, 2).transpose(1, 2).contiguous() for x in (q, *whole))
    step = torch.arange(W * L, device="cuda")[:, None] // L
    at = torch.arange((W + 1) * L, device="cuda") // L - 1
    seen = (step >= at) & (step - at < W)

    def inside(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        steps = query // L + 1 - key // L
        return (steps >= 0) & (steps < W)

    def by(backend: SDPBackend) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q_flat, k_flat, v_flat, attn_mask=seen)

    reference = window_attention.window_attention_reference
    kernel = window_attention.window_attention_triton
    tile = window_attention.window_config(samples * H, W * L, (W + 16 // L) * L, q.dtype)
    return Case(
        name=f"window_attention/{samples}x{W * L}",
        kernel=lambda: kernel(q, k, v, window=W, start=start),
        baselines={
            "in tiles": lambda: kernel(q, k, v, window=W, start=start, config=tile),
            "SDPA efficient": lambda: by(SDPBackend.EFFICIENT_ATTENTION),
            "SDPA cuDNN": lambda: by(SDPBackend.CUDNN_ATTENTION),
            "FlexAttention": flex_attention_work(q_flat, k_flat, v_flat, inside),
        },
        bytes=2 * samples * W * L * 4 * D,
        flops=4 * D * samples * int(seen.sum()),
        exact=lambda: reference(
            *(x.double() for x in (q, k, v)),
            window=W,
            start=window_attention.KeysValues(*(x.double() for x in start)),
        ),
    )


def flex_attention_work(q: Tensor, k: Tensor, v: Tensor, inside: Callable[..., Tensor]) -> Work:
    """Compiled FlexAttention with a block mask, which is made at the first call."""
    compiled = torch.compile(flex_attention, dynamic=False)
    mask = create_block_mask(inside, None, None, q.shape[2], k.shape[2])
    return lambda: compiled(q, k, v, block_mask=mask)


def _step_attention(streams: int) -> Case:
    k, v = _bf16(streams * W, L, H, K), _bf16(streams * W, L, H, K)
    q_new, k_new, v_new = _bf16(streams, L, 3, H, K).unbind(2)
    page = torch.arange(streams * W, device="cuda", dtype=torch.int32).view(streams, W)
    own = page[:, 5].contiguous()
    pages = k, v, own, page
    reference = step_attention.advance_step_attention_reference
    kernel = step_attention.advance_step_attention_triton

    def exact() -> Tensor:
        q_wide, k_wide, v_wide = (x.double() for x in (q_new, k_new, v_new))
        return reference(q_wide, k_wide, v_wide, k.double(), v.double(), own, page)

    return Case(
        name=f"step_attention/{streams}_streams",
        kernel=lambda: kernel(q_new, k_new, v_new, *pages),
        baselines={"gather, SDPA": lambda: reference(q_new, k_new, v_new, *pages)},
        bytes=2 * streams * (2 * W * L * D + 6 * L * D),
        flops=4 * streams * L * W * L * D,
        exact=exact,
    )


def _rms_norm_quantize(rows: int) -> Case:
    x = _bf16(rows, D)
    return Case(
        name=f"rms_norm_quantize/{rows}x{D}",
        kernel=lambda: rms_norm_quantize_rows_triton(x, EPS)[0],
        baselines={"PyTorch": lambda: rms_norm_quantize_rows_reference(x, EPS)[0]},
        bytes=rows * D * 3 + rows * 4,
        exact=lambda: quantize_rows_reference(x.double())[0],
    )


def _int8_matmul(rows: int, depth: int, columns: int) -> Case:
    """Rows that are quantised already."""
    x, weight = _bf16(rows, depth), _bf16(columns, depth) / depth**0.5
    q, scale = quantize_rows_triton(x)
    small = quantize_weight(weight)
    epilogue = Epilogue(torch.bfloat16)
    tile = int8_matmul.tile_for(rows, columns, depth, epilogue)
    return Case(
        name=f"int8_matmul/{rows}x{depth}x{columns}",
        kernel=lambda: int8_matmul_triton(q, scale, small, epilogue),
        baselines={
            "in tiles": lambda: int8_matmul_triton(q, scale, small, epilogue, config=tile),
            **_products(x, weight),
        },
        bytes=rows * depth + columns * depth + 2 * rows * columns,
        flops=2 * rows * depth * columns,
        exact=lambda: _wide_product(q, scale, small),
        integer=True,
    )


def _int8_norm_linear(
    rows: int, columns: int, gelu: Activation | None, out_scale: float | None
) -> Case:
    x, weight = _bf16(rows, D), _bf16(columns, D) / D**0.5
    squares = x.float().square().unflatten(1, (4, -1)).sum(-1)
    small = quantize_weight(weight)

    def exact() -> Tensor:
        y = _wide_product(*rms_norm_quantize_rows_reference(x, EPS), small)
        y = y if gelu is None else F.gelu(y, approximate="tanh")
        return y if out_scale is None else (y / out_scale).clamp(-127, 127)

    kind = ("_gelu" if gelu else "") + ("_int8" if out_scale else "")
    return Case(
        name=f"int8_norm_linear/{rows}x{D}x{columns}{kind}",
        kernel=lambda: int8_norm_linear_triton(Rows(x), small, EPS, gelu, out_scale=out_scale),
        baselines={
            "bf16 kernel": lambda: norm_linear_triton(
                x, weight, None, EPS, gelu, squares_MP=squares
            ),
            **_products(x, weight),
        },
        bytes=2 * rows * D + columns * D + (1 if out_scale else 2) * rows * columns,
        flops=2 * rows * D * columns,
        exact=exact,
        integer=True,
    )


def _int8_linear_add(rows: int, depth: int, in_scale: float | None) -> Case:
    """Given their scale, the rows are quantised already."""
    x, weight, residual = _bf16(rows, depth), _bf16(D, depth) / depth**0.5, _bf16(rows, D)
    small = quantize_weight(weight)
    inputs = x if in_scale is None else quantize_with_triton(x, in_scale)

    def exact() -> Tensor:
        if in_scale is None:
            return residual.double() + _wide_product(*quantize_rows_reference(x), small)
        scale = torch.full((rows,), in_scale, device="cuda")
        return residual.double() + _wide_product(inputs, scale, small)

    return Case(
        name=f"int8_linear_add/{rows}x{depth}x{D}{'_int8' if in_scale else ''}",
        kernel=lambda: int8_linear_add_triton(inputs, small, residual, in_scale=in_scale).x,
        baselines={
            "bf16 kernel": lambda: linear_add_triton(x, weight, residual).x,
            **_products(x, weight),
        },
        bytes=(1 if in_scale else 2) * rows * depth + D * depth + 4 * rows * D,
        flops=2 * rows * depth * D,
        exact=exact,
        integer=True,
    )


def _products(x: Tensor, weight: Tensor) -> dict[str, Work]:
    """The libraries' bare products, of the integers where these take so few rows."""
    q, t = quantize_rows_triton(x)[0], quantize_weight(weight).q_NK.t()
    works: dict[str, Work] = {"cuBLAS bf16": lambda: F.linear(x, weight)}
    if len(x) > 16:
        works["torch._int_mm, unscaled"] = lambda: torch._int_mm(q, t)
    return works


def _wide_product(q: Tensor, scale: Tensor, weight: Int8Weight) -> Tensor:
    """What the 8-bit values stand for, multiplied in float64."""
    total = q.double() @ weight.q_NK.double().t()
    return total * scale.double()[:, None] * weight.scale_N.double()
