"""Triton kernels of the lambda layer with local context: forward and backward, deterministic, no position lambdas.

Scores and bands stay on chip. For ``BLOCK`` positions and ``GROUP`` heads, one row per pair (i, h), and for a tile of
``BLOCK`` offsets j, the scores are one small product, and the band is the scores with row i moved right by i. It is
multiplied with the values that these positions see, 2 BLOCK rows shared by all heads, in a near and a far half::

    s[(i, h), j]       = q[i, h] . E[:, u, j]                 (BLOCK GROUP, BLOCK)
    rotated[(i, h), c] = s[(i, h), (c - i) mod BLOCK]
    near = rotated where c >= i, far = rotated where c < i    columns c and BLOCK + c of the band
    y[(i, h)]          = q[i, h] . lc + near . V[start - r // 2 + c] + far . V[start - r // 2 + BLOCK + c]

Both halves thus need only one rotation, ``tl.gather`` along the row, and neither scores nor bands touch device memory.
The backward pass recomputes both, and rotates the gradient of the band back. Sums over blocks of positions are partial
sums in float32, one slot per program, added in a fixed order afterwards: no atomics, always the same bits.

Letters are those of :func:`fairseq_lambda.ops.lambda_mix`; ``channel_tile`` counts tiles of ``BLOCK_V`` value channels,
``slice`` the combinations of a channel tile, an intra-depth u and a tile of offsets. Offsets into a tile fit 32 bits;
the batch and the first position are in 64 bits, since b n h v may exceed 2^31.

The least work, for h=12 k=16 v=64 u=1 r=23 in bfloat16: forward 2.2 kB and 137 kFLOP per token, backward 4.0 kB and
287 kFLOP. At 3.0 TB/s and 790 TFLOP/s that is 0.74 and 1.32 ns for the bytes, 0.17 and 0.36 ns for the products. Memory
is the limit, so the kernels read y's gradient once and spend products instead: half of those in a band are with zeros.
Fused softmax attention moves 18.4 kB per token and holds 12.3 kB; this layer holds 4.8 kB.

The launchers are in :mod:`fairseq_lambda.ops.triton.mix`, which is imported only when the backend is picked.
"""

import triton
import triton.language as tl

# Triton 3.9's interpreter multiplies the bit patterns of bfloat16 and truncates where the compiler rounds to nearest.
# _dot and _round give it the compiled kernels' arithmetic; compiled, they are tl.dot and a cast.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr, total=None):
    """Return a b, added to total if given, accumulated in float32."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


@triton.jit
def _round(x, dtype: tl.constexpr):
    """Return the float32 x in the given precision, rounded to nearest even."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        x = (bits + 0x7FFF + ((bits >> 16) & 1)).to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit(do_not_specialize=["length"])
def content_kernel(
    keys, values, partial,
    length, keys_b, keys_n, keys_k, keys_u, values_b, values_n, values_v, values_u,
    DIM_K: tl.constexpr, DIM_V: tl.constexpr, DIM_U: tl.constexpr,
    SPAN: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """partial[b, s, k, v] = the sum of K[m, k, u] V[m, v, u] over u and the SPAN positions m of span s."""
    CHANNEL_TILES: tl.constexpr = (DIM_V + BLOCK_V - 1) // BLOCK_V
    spans = tl.cdiv(length, SPAN)
    program = tl.program_id(0)
    channel_tile = program % CHANNEL_TILES
    span = program // CHANNEL_TILES % spans
    batch = (program // CHANNEL_TILES // spans).to(tl.int64)
    k = tl.arange(0, BLOCK_K)
    v = channel_tile * BLOCK_V + tl.arange(0, BLOCK_V)
    first = span * SPAN
    keys += batch * keys_b + first.to(tl.int64) * keys_n
    values += batch * values_b + first.to(tl.int64) * values_n
    total = tl.zeros((BLOCK_K, BLOCK_V), tl.float32)
    for u in range(DIM_U):
        for start in range(0, SPAN, BLOCK):
            m = start + tl.arange(0, BLOCK)
            inside = first + m < length
            key = tl.load(
                keys + k[:, None] * keys_k + m[None, :] * keys_n + u * keys_u,
                mask=(k < DIM_K)[:, None] & inside[None, :], other=0.0,
            )  # fmt: skip
            value = tl.load(
                values + m[:, None] * values_n + v[None, :] * values_v + u * values_u,
                mask=inside[:, None] & (v < DIM_V)[None, :], other=0.0,
            )  # fmt: skip
            total = _dot(key, value, PRECISION, total)
    partial += (batch * spans + span) * (DIM_K * DIM_V)
    mask = (k < DIM_K)[:, None] & (v < DIM_V)[None, :]
    tl.store(partial + k[:, None] * DIM_V + v[None, :], _round(total, partial.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["length"])
def forward_kernel(
    queries, values, embedding, content, y,
    length, queries_b, queries_n, queries_h, queries_k, values_b, values_n, values_v, values_u,
    HEADS: tl.constexpr, DIM_K: tl.constexpr, DIM_V: tl.constexpr, DIM_U: tl.constexpr, CONTEXT: tl.constexpr,
    BLOCK: tl.constexpr, GROUP: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y[b, n, h, v] for one block of positions, group of heads and tile of value channels."""
    CHANNEL_TILES: tl.constexpr = (DIM_V + BLOCK_V - 1) // BLOCK_V
    GROUPS: tl.constexpr = (HEADS + GROUP - 1) // GROUP
    blocks = tl.cdiv(length, BLOCK)
    program = tl.program_id(0)
    group = program % GROUPS  # the groups of a block run side by side and find its values in the cache
    channel_tile = program // GROUPS % CHANNEL_TILES
    block = program // (GROUPS * CHANNEL_TILES) % blocks
    batch = (program // (GROUPS * CHANNEL_TILES) // blocks).to(tl.int64)
    first = block * BLOCK

    row = tl.arange(0, BLOCK * GROUP)
    i, head = row // GROUP, group * GROUP + row % GROUP
    real = (first + i < length) & (head < HEADS)
    k, j = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK)
    v = channel_tile * BLOCK_V + tl.arange(0, BLOCK_V)
    right = (j[None, :] - i[:, None]) & (BLOCK - 1)
    near = j[None, :] >= i[:, None]

    queries += batch * queries_b + first.to(tl.int64) * queries_n
    values += batch * values_b
    q = tl.load(
        queries + (i * queries_n + head * queries_h)[:, None] + k[None, :] * queries_k,
        mask=real[:, None] & (k < DIM_K)[None, :], other=0.0,
    )  # fmt: skip
    content += batch * (DIM_K * DIM_V)
    summary = tl.load(
        content + k[:, None] * DIM_V + v[None, :], mask=(k < DIM_K)[:, None] & (v < DIM_V)[None, :], other=0.0
    )
    total = _dot(q, summary, PRECISION)
    for u in range(DIM_U):
        for tile in range(0, CONTEXT, BLOCK):
            e = tl.load(
                embedding + k[:, None] * (DIM_U * CONTEXT) + u * CONTEXT + (tile + j)[None, :],
                mask=(k < DIM_K)[:, None] & (tile + j < CONTEXT)[None, :], other=0.0,
            )  # fmt: skip
            scores = _round(_dot(q, e, PRECISION), q.dtype)
            rotated = tl.gather(scores, right, 1)
            for half in tl.static_range(2):
                m = first - CONTEXT // 2 + tile + half * BLOCK + j
                value = tl.load(
                    values + m.to(tl.int64)[:, None] * values_n + v[None, :] * values_v + u * values_u,
                    mask=((m >= 0) & (m < length))[:, None] & (v < DIM_V)[None, :], other=0.0,
                )  # fmt: skip
                band = tl.where(near if half == 0 else near == 0, rotated, 0.0)
                total = _dot(band, value, PRECISION, total)
    y += (batch * length + first) * (HEADS * DIM_V)
    tl.store(
        y + (i * HEADS + head)[:, None] * DIM_V + v[None, :],
        _round(total, y.dtype.element_ty), mask=real[:, None] & (v < DIM_V)[None, :],
    )  # fmt: skip


@triton.jit(do_not_specialize=["length"])
def backward_kernel(
    queries, values, embedding, content, grad_y, grad_queries, partial_values, partial_embedding, partial_content,
    length, queries_b, queries_n, queries_h, queries_k, values_b, values_n, values_v, values_u,
    HEADS: tl.constexpr, DIM_K: tl.constexpr, DIM_V: tl.constexpr, DIM_U: tl.constexpr, CONTEXT: tl.constexpr,
    BLOCK: tl.constexpr, GROUP: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The partial gradients of one block of positions and one slice, over all heads; the products are transposed so
    that tensor cores see at least 64 rows::

        gs[(i, h), j]     = gband[(i, h), i + j],  gband = gy V^T
        partial_values    = band^T gy        (2 BLOCK, v)    rows start - r // 2 + ... of the gradient of V
        partial_embedding = q^T gs           (k, BLOCK)
        partial_content   = q^T gy           (k, v)          by the first slice of a channel_tile
        grad_queries      = gs E^T + gy lc^T                 if there is one slice, else query_kernel sums them
    """
    CHANNEL_TILES: tl.constexpr = (DIM_V + BLOCK_V - 1) // BLOCK_V
    TILES: tl.constexpr = (CONTEXT + BLOCK - 1) // BLOCK
    GROUPS: tl.constexpr = (HEADS + GROUP - 1) // GROUP
    SLICES: tl.constexpr = CHANNEL_TILES * DIM_U * TILES
    blocks = tl.cdiv(length, BLOCK)
    program = tl.program_id(0)
    part = program % (DIM_U * TILES)
    u, tile = part // TILES, part % TILES * BLOCK
    channel_tile = program // (DIM_U * TILES) % CHANNEL_TILES
    block = program // SLICES % blocks
    batch = (program // SLICES // blocks).to(tl.int64)
    first = block * BLOCK

    row = tl.arange(0, BLOCK * GROUP)
    i = row // GROUP
    k, j = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK)
    v = channel_tile * BLOCK_V + tl.arange(0, BLOCK_V)
    right = (j[None, :] - i[:, None]) & (BLOCK - 1)
    left = (j[None, :] + i[:, None]) & (BLOCK - 1)
    near = j[None, :] >= i[:, None]

    m = first - CONTEXT // 2 + tile + j
    far_m = m + BLOCK
    values += batch * values_b + u * values_u
    near_value = tl.load(
        values + m.to(tl.int64)[:, None] * values_n + v[None, :] * values_v,
        mask=((m >= 0) & (m < length))[:, None] & (v < DIM_V)[None, :], other=0.0,
    )  # fmt: skip
    far_value = tl.load(
        values + far_m.to(tl.int64)[:, None] * values_n + v[None, :] * values_v,
        mask=((far_m >= 0) & (far_m < length))[:, None] & (v < DIM_V)[None, :], other=0.0,
    )  # fmt: skip
    e_at = k[:, None] * (DIM_U * CONTEXT) + u * CONTEXT + (tile + j)[None, :]
    e_mask = (k < DIM_K)[:, None] & (tile + j < CONTEXT)[None, :]
    e = tl.load(embedding + e_at, mask=e_mask, other=0.0)
    kv_at = k[:, None] * DIM_V + v[None, :]
    kv_mask = (k < DIM_K)[:, None] & (v < DIM_V)[None, :]
    summary = tl.load(content + batch * (DIM_K * DIM_V) + kv_at, mask=kv_mask, other=0.0)

    queries += batch * queries_b + first.to(tl.int64) * queries_n
    grad_y += (batch * length + first) * (HEADS * DIM_V)
    grad_queries += (batch * length + first) * (HEADS * DIM_K)
    sum_near = tl.zeros((BLOCK_V, BLOCK), tl.float32)
    sum_far = tl.zeros((BLOCK_V, BLOCK), tl.float32)
    sum_embedding = tl.zeros((BLOCK_K, BLOCK), tl.float32)
    sum_content = tl.zeros((BLOCK_V, BLOCK_K), tl.float32)
    for group in range(GROUPS):
        head = group * GROUP + row % GROUP
        real = (first + i < length) & (head < HEADS)
        q = tl.load(
            queries + (i * queries_n + head * queries_h)[:, None] + k[None, :] * queries_k,
            mask=real[:, None] & (k < DIM_K)[None, :], other=0.0,
        )  # fmt: skip
        gy = tl.load(
            grad_y + (i * HEADS + head)[:, None] * DIM_V + v[None, :],
            mask=real[:, None] & (v < DIM_V)[None, :], other=0.0,
        )  # fmt: skip
        scores = _round(_dot(q, e, PRECISION), q.dtype)
        rotated = tl.gather(scores, right, 1)
        sum_near = _dot(tl.trans(gy), tl.where(near, rotated, 0.0), PRECISION, sum_near)
        sum_far = _dot(tl.trans(gy), tl.where(near, 0.0, rotated), PRECISION, sum_far)
        sum_content = _dot(tl.trans(gy), q, PRECISION, sum_content)
        grad_near = _dot(gy, tl.trans(near_value), PRECISION)
        grad_far = _dot(gy, tl.trans(far_value), PRECISION)
        grad_scores = tl.gather(_round(tl.where(near, grad_near, grad_far), q.dtype), left, 1)
        sum_embedding = _dot(tl.trans(q), grad_scores, PRECISION, sum_embedding)
        if SLICES == 1:
            gq = _dot(gy, tl.trans(summary), PRECISION)
            gq = _dot(grad_scores, tl.trans(e), PRECISION, gq)
            tl.store(
                grad_queries + (i * HEADS + head)[:, None] * DIM_K + k[None, :],
                _round(gq, grad_queries.dtype.element_ty), mask=real[:, None] & (k < DIM_K)[None, :],
            )  # fmt: skip

    place = batch * blocks + block
    far_width = tl.minimum(BLOCK, CONTEXT - tile) - 1  # positions of the far half that this tile of offsets reaches
    partial_values += (place * (DIM_U * TILES) + part) * (2 * BLOCK * DIM_V)
    at = j[None, :] * DIM_V + v[:, None]
    tl.store(partial_values + at, sum_near, mask=(v < DIM_V)[:, None])
    tl.store(partial_values + BLOCK * DIM_V + at, sum_far, mask=(v < DIM_V)[:, None] & (j < far_width)[None, :])
    partial_embedding += (place * CHANNEL_TILES + channel_tile) * (DIM_K * DIM_U * CONTEXT)
    tl.store(partial_embedding + e_at, sum_embedding, mask=e_mask)
    if part == 0:
        tl.store(
            partial_content + place * (DIM_K * DIM_V) + k[None, :] * DIM_V + v[:, None],
            sum_content, mask=(v < DIM_V)[:, None] & (k < DIM_K)[None, :],
        )  # fmt: skip


@triton.jit(do_not_specialize=["length"])
def query_kernel(
    values, embedding, content, grad_y, grad_queries,
    length, values_b, values_n, values_v, values_u,
    HEADS: tl.constexpr, DIM_K: tl.constexpr, DIM_V: tl.constexpr, DIM_U: tl.constexpr, CONTEXT: tl.constexpr,
    BLOCK: tl.constexpr, GROUP: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """grad_queries of one block of positions and group of heads, summed over the slices of backward_kernel."""
    GROUPS: tl.constexpr = (HEADS + GROUP - 1) // GROUP
    blocks = tl.cdiv(length, BLOCK)
    program = tl.program_id(0)
    group = program % GROUPS
    block = program // GROUPS % blocks
    batch = (program // GROUPS // blocks).to(tl.int64)
    first = block * BLOCK
    row = tl.arange(0, BLOCK * GROUP)
    i, head = row // GROUP, group * GROUP + row % GROUP
    real = (first + i < length) & (head < HEADS)
    k, j = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK)
    left = (j[None, :] + i[:, None]) & (BLOCK - 1)
    near = j[None, :] >= i[:, None]
    values += batch * values_b
    content += batch * (DIM_K * DIM_V)
    grad_y += (batch * length + first) * (HEADS * DIM_V)
    gq = tl.zeros((BLOCK * GROUP, BLOCK_K), tl.float32)
    for start in range(0, DIM_V, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        gy = tl.load(
            grad_y + (i * HEADS + head)[:, None] * DIM_V + v[None, :],
            mask=real[:, None] & (v < DIM_V)[None, :], other=0.0,
        )  # fmt: skip
        summary = tl.load(
            content + k[:, None] * DIM_V + v[None, :], mask=(k < DIM_K)[:, None] & (v < DIM_V)[None, :], other=0.0
        )
        gq = _dot(gy, tl.trans(summary), PRECISION, gq)
        for u in range(DIM_U):
            for tile in range(0, CONTEXT, BLOCK):
                m = first - CONTEXT // 2 + tile + j
                far_m = m + BLOCK
                near_value = tl.load(
                    values + m.to(tl.int64)[:, None] * values_n + v[None, :] * values_v + u * values_u,
                    mask=((m >= 0) & (m < length))[:, None] & (v < DIM_V)[None, :], other=0.0,
                )  # fmt: skip
                far_value = tl.load(
                    values + far_m.to(tl.int64)[:, None] * values_n + v[None, :] * values_v + u * values_u,
                    mask=((far_m >= 0) & (far_m < length))[:, None] & (v < DIM_V)[None, :], other=0.0,
                )  # fmt: skip
                e = tl.load(
                    embedding + k[:, None] * (DIM_U * CONTEXT) + u * CONTEXT + (tile + j)[None, :],
                    mask=(k < DIM_K)[:, None] & (tile + j < CONTEXT)[None, :], other=0.0,
                )  # fmt: skip
                grad_near = _dot(gy, tl.trans(near_value), PRECISION)
                grad_far = _dot(gy, tl.trans(far_value), PRECISION)
                grad_scores = tl.gather(_round(tl.where(near, grad_near, grad_far), gy.dtype), left, 1)
                gq = _dot(grad_scores, tl.trans(e), PRECISION, gq)
    grad_queries += (batch * length + first) * (HEADS * DIM_K)
    tl.store(
        grad_queries + (i * HEADS + head)[:, None] * DIM_K + k[None, :],
        _round(gq, grad_queries.dtype.element_ty), mask=real[:, None] & (k < DIM_K)[None, :],
    )  # fmt: skip


@triton.jit(do_not_specialize=["length"])
def combine_kernel(
    keys, values, partial_values, sum_content, grad_content, grad_keys, grad_values,
    length, keys_b, keys_n, keys_k, keys_u, values_b, values_n, values_v, values_u,
    DIM_K: tl.constexpr, DIM_V: tl.constexpr, DIM_U: tl.constexpr, CONTEXT: tl.constexpr,
    HAS_GRAD_CONTENT: tl.constexpr, BLOCK: tl.constexpr, SPAN: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """grad_keys and grad_values of SPAN context positions m and one intra-depth u::

    glc            = sum_content + grad_content                              gradient of the content lambda
    grad_keys[m]   = V[m] glc^T
    grad_values[m] = K[m] glc + the partial sums whose blocks of positions see m, two per tile of offsets
    """
    TILES: tl.constexpr = (CONTEXT + BLOCK - 1) // BLOCK
    spans = tl.cdiv(length, SPAN)
    blocks = tl.cdiv(length, BLOCK)
    program = tl.program_id(0)
    u = program % DIM_U
    span = program // DIM_U % spans
    batch = (program // DIM_U // spans).to(tl.int64)
    m = span * SPAN + tl.arange(0, SPAN)
    inside = m < length
    k = tl.arange(0, BLOCK_K)
    at = m.to(tl.int64)[:, None]
    key = tl.load(
        keys + batch * keys_b + at * keys_n + k[None, :] * keys_k + u * keys_u,
        mask=inside[:, None] & (k < DIM_K)[None, :], other=0.0,
    )  # fmt: skip
    gk = tl.zeros((SPAN, BLOCK_K), tl.float32)
    for start in range(0, DIM_V, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        mask = inside[:, None] & (v < DIM_V)[None, :]
        kv_at = batch * (DIM_K * DIM_V) + k[:, None] * DIM_V + v[None, :]
        kv_mask = (k < DIM_K)[:, None] & (v < DIM_V)[None, :]
        glc = tl.load(sum_content + kv_at, mask=kv_mask, other=0.0)
        if HAS_GRAD_CONTENT:
            glc += tl.load(grad_content + kv_at, mask=kv_mask, other=0.0).to(tl.float32)
        glc = _round(glc, key.dtype)
        value = tl.load(
            values + batch * values_b + at * values_n + v[None, :] * values_v + u * values_u, mask=mask, other=0.0
        )
        gk = _dot(value, tl.trans(glc), PRECISION, gk)
        gv = _dot(key, glc, PRECISION)
        for tile in range(TILES):
            width = BLOCK + tl.minimum(BLOCK, CONTEXT - tile * BLOCK) - 1
            a = m + CONTEXT // 2 - tile * BLOCK
            block = tl.where(a >= 0, a // BLOCK, -1)
            w = a - block * BLOCK
            for step in tl.static_range(2):
                found = (block - step >= 0) & (block - step < blocks) & (w + step * BLOCK < width)
                place = ((batch * blocks + block - step) * DIM_U + u) * TILES + tile
                gv += tl.load(
                    partial_values + (place * (2 * BLOCK) + w + step * BLOCK)[:, None] * DIM_V + v[None, :],
                    mask=mask & found[:, None], other=0.0,
                )  # fmt: skip
        to = ((batch * length + at) * DIM_V + v[None, :]) * DIM_U + u
        tl.store(grad_values + to, _round(gv, grad_values.dtype.element_ty), mask=mask)
    to = ((batch * length + at) * DIM_K + k[None, :]) * DIM_U + u
    tl.store(grad_keys + to, _round(gk, grad_keys.dtype.element_ty), mask=inside[:, None] & (k < DIM_K)[None, :])
