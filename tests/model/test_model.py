"""The model against naive twins: what is carried once, chunked or cached changes nothing."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from incontext.inference.offload import DiskChunks
from incontext.model import SIZES, Config, SegGPT, painting_loss
from incontext.model.attention import attention
from incontext.model.layers import Attention, join_heads, relative_table, split_heads
from incontext.model.tokens.encoder import stretch
from incontext.model.tokens.independent import IndependentAttention

JOINT = replace(SIZES["tiny"], depth=4, merge_after=1, taps=(1, 3))
INDEPENDENT = Config(
    image_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2, decoder_dim=16,
    position_grid=4, relative_position=False, merge_after=1, taps=(1, 3),
    example_attention="independent", stem=(8, 16, 24), stem_blocks=1, copy_heads=2, copy_dim=8,
)  # fmt: skip


def randomized(config: Config, seed: int = 0) -> SegGPT:
    """A model in which every parameter matters: fresh ones hold zeros in tables and biases."""
    torch.manual_seed(seed)
    model = SegGPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) / max(4.0, parameter.shape[-1] ** 0.5))
            if parameter.dim() == 1:
                parameter.add_(0.5)
    return model


def inputs(batch: int, examples: int, height: int = 32, width: int = 32, prompts: int = 1):
    torch.manual_seed(batch * 100 + examples)
    images, targets = torch.randn(2, prompts, examples, 3, height, width)
    semantic = torch.arange(prompts) % 2 == 1
    return torch.randn(batch, 3, height, width), images, targets, semantic


def naive_attention(attn: Attention, x: torch.Tensor) -> torch.Tensor:
    """The whole matrix of a (H, W, C) grid, bias from unscaled queries, one pair at a time."""
    rows, columns, channels = x.shape
    qkv = attn.qkv(x).view(rows * columns, 3, attn.heads, -1)
    q, k, v = (part.transpose(0, 1) for part in qkv.unbind(1))  # (n, H·W, d)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(1, 2)
    if attn.relative:
        table_h = relative_table(attn.rel_pos_h, rows)
        table_w = relative_table(attn.rel_pos_w, columns)
        for a in range(rows * columns):
            for b in range(rows * columns):
                offset = table_h[a // columns, b // columns] + table_w[a % columns, b % columns]
                scores[:, a, b] += q[:, a] @ offset
    return (scores.softmax(-1) @ v).transpose(0, 1).reshape(rows, columns, channels)


def naive_joint(model: SegGPT, query, images, targets, semantic) -> torch.Tensor:
    """One query, N whole canvases, as the official code does it: (3, H, W)."""
    encoder, config = model.encoder, model.config
    count, half = images.shape[1], query.shape[-2] // config.patch_size
    canvases = []
    for n in range(count):
        image = torch.cat([images[0, n], query[0]], 1)[None]
        target = torch.cat([targets[0, n], torch.zeros_like(query[0])], 1)[None]
        x, y = encoder.embed(image), encoder.embed(target).clone()
        y[:, half:] = encoder.mask_token
        kind = encoder.type_semantic if semantic[0] else encoder.type_instance
        position = stretch(encoder.position, 2 * half, x.shape[2])
        x = x + encoder.segment_image + position + kind
        y = y + encoder.segment_target + position + kind
        canvases.append(torch.cat([x, y]))
    tokens = torch.stack(canvases)  # (N, 2, 2h, w, C)
    taps = []
    for index, block in enumerate(encoder.blocks):
        context = torch.stack(
            [torch.stack([naive_attention(block.attn, block.norm1(s)) for s in c]) for c in tokens]
        )
        context = block.attn.proj(context)
        context[:, :, half:] = context[:, :, half:].mean(0, keepdim=True)
        tokens = tokens + context
        tokens = tokens + block.mlp(block.norm2(tokens))
        if index == config.merge_after:
            tokens = tokens.mean(1, keepdim=True)
        if index in config.taps:
            taps.append(encoder.norm(tokens[:1, 0]))
    x = torch.cat(taps, -1)
    x = model.decoder.embed(x)
    rows, columns = x.shape[1:3]
    patch = config.patch_size
    x = x.view(1, rows, columns, patch, patch, -1).permute(0, 5, 1, 3, 2, 4)
    x = x.reshape(1, -1, rows * patch, columns * patch)
    painting = model.decoder.head(F.gelu(model.decoder.norm(model.decoder.conv(x))))
    return painting[0, :, half * patch :]


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-5 of the whole, and nowhere far off."""
    assert (got - expected).norm() <= 1e-5 * expected.norm()
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("examples", [1, 2, 5])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_joint_equals_naive(batch, examples, size, tmp_path):
    """Fast paths and the one with gradients; any chunk; prompts reused, in files, unsettled."""
    model = randomized(JOINT)
    query, images, targets, semantic = inputs(batch, examples, *size)
    with torch.inference_mode():
        expected = torch.stack(
            [naive_joint(model, q[None], images, targets, semantic) for q in query]
        )
        for chunk in (None, 1, 2, 3):
            encoded = model.encode(images, targets, semantic, chunk=chunk)
            for _ in range(2):  # the second query finds the prompt as it was
                close(model.paint(query, encoded, chunk=chunk), expected)
        pairs = list(zip(images.split(2, 1), targets.split(2, 1), strict=True))
        encoded = model.encode_batches(pairs, semantic, storage=DiskChunks(tmp_path))
        close(model.paint(query, encoded), expected)
        encoded = model.encode_batches(pairs, semantic, precompute_targets=False)
        close(model.paint(query, encoded), expected)
        order = torch.arange(examples).expand(batch, -1)
        close(model.paint(query, encoded.select(order)), expected)
    for chunk in (None, 2):
        close(model(query, images, targets, semantic, chunk=chunk).detach(), expected)


def test_whole_canvas_equals_the_query_half():
    """The last block computes only what is asked for: all of it, or the row at the seam."""
    model = randomized(JOINT)
    arguments = inputs(2, 3)
    with torch.inference_mode():
        whole = model(*arguments, whole_canvas=True)
        close(whole[:, :, 32:], model(*arguments))
    close(model(*arguments, whole_canvas=True).detach(), whole)


def naive_independent(model: SegGPT, query, images, targets, semantic) -> torch.Tensor:
    """One query: all tokens in one attention whose mask lets examples see only themselves."""
    encoder, config = model.encoder, model.config
    count, half = images.shape[1], query.shape[-2] // config.patch_size
    columns = query.shape[-1] // config.patch_size
    image, skips = encoder.stem(torch.cat([images[0], query]))
    target = encoder.embed(targets[0])
    own = [s[-1:] for s in skips]
    matches = encoder.copy_path.cache_examples([s[:-1] for s in skips], targets)
    copied = encoder.copy_path(own, matches)
    guess = encoder.copy_path.guess(copied).permute(0, 2, 3, 1)
    hidden = encoder.mask_token.expand_as(guess) + guess
    kind = encoder.type_semantic if semantic[0] else encoder.type_instance
    position = stretch(encoder.position, 2 * half, columns)
    place = torch.cat([position[None, :half].expand(count, -1, -1, -1), position[None, half:]])
    x = image + encoder.segment_image + place + kind
    y = torch.cat([target, hidden]) + encoder.segment_target + place + kind
    tokens = torch.stack([x, y]).flatten(1, 3)  # (2, (N + 1)·h·w, C), the query last
    size = half * columns
    owner = torch.arange(count + 1).repeat_interleave(size)
    bias = torch.where(owner[:, None] == owner[None], 0.0, -math.inf)
    bias[-size:, :-size] = -math.log(count)
    taps = []
    for index, block in enumerate(encoder.blocks):
        qkv = block.attn.qkv(block.norm1(tokens)).unflatten(-1, (3, config.num_heads, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3) + bias
        context = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        tokens = tokens + block.attn.proj(context)
        tokens = tokens + block.mlp(block.norm2(tokens))
        if index == config.merge_after:
            tokens = tokens.mean(0, keepdim=True)
        if index in config.taps:
            taps.append(encoder.norm(tokens[0, -size:].view(1, half, columns, -1)))
    from incontext.model.tokens.encoder import Features

    colors = encoder.copy_path.colors(copied)
    return model.decoder(Features(taps, 0, query, own, copied, colors))[0]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("examples", [1, 2, 5])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_independent_equals_naive(batch, examples, size):
    model = randomized(INDEPENDENT)
    query, images, targets, semantic = inputs(batch, examples, *size)
    with torch.inference_mode():
        expected = torch.stack(
            [naive_independent(model, q[None], images, targets, semantic) for q in query]
        )
        for chunk in (None, 1, 2):
            encoded = model.encode(images, targets, semantic, chunk=chunk)
            close(model.paint(query, encoded), expected)
            close(model(query, images, targets, semantic, chunk=chunk), expected)
            order = torch.arange(examples).expand(batch, -1)
            close(model.paint(query, encoded.select(order)), expected)
    close(model(query, images, targets, semantic).detach(), expected)


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_thinned_attention_equals_naive(share):
    """Kept tokens count as many times as their weight says, with and without gradients."""
    model = randomized(INDEPENDENT)
    block = model.encoder.blocks[0]
    _, images, targets, semantic = inputs(2, 3)
    pairs = [(images, targets)]
    with torch.inference_mode():
        known = model.encode_batches(pairs, semantic, keep_ratio=share).cache
        kept = known.memory["image"][0]  # (1, 2, n, N, K, d)
        x = torch.randn(2, 4, 4, 32)
        got = IndependentAttention([kept], known.weight).step(block, x)
        q, k, v = split_heads(block.project(x))
        keys, values = kept[0].flatten(2, 3).expand(2, -1, -1, -1, -1).transpose(0, 1)
        scores = q @ torch.cat([k, keys], 2).transpose(2, 3) * q.shape[-1] ** -0.5
        scores[..., 16:] += known.weight.flatten() - math.log(3)
        found = scores.softmax(-1) @ torch.cat([v, values], 2)
        expected = block.finish(x, join_heads(found, 4))
        close(got, expected)
    traced = IndependentAttention([kept.clone()], known.weight.clone()).step(block, x.clone())
    close(traced.detach(), expected)
    assert kept.shape[3:5] == (3, max(2, round(16 * share)))


@pytest.mark.parametrize("config", [JOINT, INDEPENDENT], ids=["joint", "independent"])
def test_a_prompt_for_each_query(config):
    """P = B: each query sees its own prompt and kind only."""
    model = randomized(config)
    query, images, targets, semantic = inputs(3, 2, prompts=3)
    with torch.inference_mode():
        together = model(query, images, targets, semantic)
        for i in range(3):
            alone = model(
                query[i : i + 1], images[i : i + 1], targets[i : i + 1], semantic[i : i + 1]
            )
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [JOINT, INDEPENDENT], ids=["joint", "independent"])
def test_order_of_examples(config):
    """Order matters in the row at the seam only, and there only where a decoder crosses it."""
    model = randomized(config)
    query, images, targets, semantic = inputs(2, 4)
    order = torch.tensor([2, 0, 3, 1])
    with torch.inference_mode():
        painting = model(query, images, targets, semantic)
        swapped = model(query, images[:, order], targets[:, order], semantic)
    torch.testing.assert_close(painting[:, :, 1:], swapped[:, :, 1:], atol=1e-5, rtol=1e-5)
    seam = (painting - swapped)[:, :, 0].abs().max()
    assert seam > 1e-4 if config is JOINT else seam < 1e-5


@pytest.mark.parametrize("config", [JOINT, INDEPENDENT], ids=["joint", "independent"])
def test_prompt_matters(config):
    model = randomized(config)
    query, images, targets, semantic = inputs(1, 2)
    with torch.inference_mode():
        painting = model(query, images, targets, semantic)
        assert (painting - model(query, images, -targets, semantic)).abs().max() > 1e-2
        assert (painting - model(query, -images, targets, semantic)).abs().max() > 1e-3
        assert (painting - model(query, images, targets, ~semantic)).abs().max() > 2e-5


def test_repeated_example_changes_nothing():
    """IndependentAttention mode weighs all examples together as one: ten copies equal one."""
    model = randomized(INDEPENDENT)
    query, images, targets, semantic = inputs(1, 1)
    with torch.inference_mode():
        once = model(query, images, targets, semantic)
        often = model(
            query, images.repeat(1, 10, 1, 1, 1), targets.repeat(1, 10, 1, 1, 1), semantic
        )
    torch.testing.assert_close(once, often, atol=1e-5, rtol=1e-5)


def test_hidden_pixels_do_not_matter():
    model = randomized(JOINT)
    query, images, targets, semantic = inputs(2, 1)
    hidden = torch.rand(2, 8, 4) < 0.5
    upper = hidden[:, :4].repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    lower = hidden[:, 4:].repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    images, targets = images.expand(2, -1, -1, -1, -1), targets.expand(2, -1, -1, -1, -1)
    semantic = semantic.expand(2)
    truth = torch.randn(2, 3, 32, 32)
    noise = torch.randn(2, 3, 32, 32)

    def paint(example_noise, query_noise):
        shown = targets + (example_noise * upper)[:, None]
        hinted = truth + query_noise * lower
        with torch.inference_mode():
            return model(query, images, shown, semantic, query_targets=hinted, hidden=hidden)

    torch.testing.assert_close(paint(0 * noise, 0 * noise), paint(noise, noise), atol=0, rtol=0)
    visible = model(query, images, targets, semantic, query_targets=truth + noise, hidden=hidden)
    assert (visible - paint(0 * noise, 0 * noise)).abs().max() > 1e-3


@pytest.mark.parametrize("config", [JOINT, INDEPENDENT], ids=["joint", "independent"])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 2e-2), (torch.float16, 5e-3)])
def test_half_precision(config, dtype, limit):
    model = SegGPT(config).eval()
    query, images, targets, semantic = inputs(2, 3)
    with torch.inference_mode():
        expected = model(query, images, targets, semantic)
        half = model.to(dtype)(query.to(dtype), images.to(dtype), targets.to(dtype), semantic)
    assert half.dtype == dtype
    assert (half.float() - expected).norm() / expected.norm() < limit


@pytest.mark.parametrize("config", [JOINT, INDEPENDENT], ids=["joint", "independent"])
@pytest.mark.parametrize("traced", [False, True])
def test_autocast(config, traced):
    """Training in bfloat16 keeps float32 weights; so may inference."""
    model = SegGPT(config).eval()
    arguments = inputs(2, 3)
    with torch.set_grad_enabled(traced):
        expected = model(*arguments)
        with torch.autocast("cpu", torch.bfloat16):
            painting = model(*arguments)
    assert (painting - expected).norm() / expected.norm() < 2e-2


def test_training_in_bfloat16_writes_attention_out(monkeypatch):
    """The kernel's backward pass is the slower one there, on the copy path and in blocks."""

    def fused(*arguments, **options):
        raise AssertionError("a fused kernel was called")

    model = SegGPT(INDEPENDENT)
    with torch.autocast("cpu", torch.bfloat16):
        monkeypatch.setattr(F, "scaled_dot_product_attention", fused)
        model(*inputs(2, 3)).square().mean().backward()


def test_changed_weights_are_seen():
    """What inference keeps of position tables goes with the weights it was made from."""
    model = randomized(JOINT)
    arguments = inputs(1, 2, 24, 40)
    other = randomized(JOINT, seed=1)
    with torch.inference_mode():
        before, wanted = model(*arguments), other(*arguments)
    model.load_state_dict(other.state_dict())
    with torch.inference_mode():
        assert torch.equal(model(*arguments), wanted)
        assert not torch.equal(before, wanted)
    with torch.no_grad():
        model.encoder.blocks[0].attn.rel_pos_w += 0.1
        model.encoder.position += 0.1
    changed = model(*arguments).detach()
    with torch.inference_mode():
        close(model(*arguments), changed)


@pytest.mark.parametrize("config", [JOINT, INDEPENDENT], ids=["joint", "independent"])
def test_no_examples(config):
    model = SegGPT(config)
    _, images, targets, semantic = inputs(1, 1)
    for make in (
        lambda: model.encode(images[:, :0], targets[:, :0], semantic),
        lambda: model.encode_batches([], semantic),
    ):
        with pytest.raises(ValueError, match="one example or more"):
            make()


@pytest.mark.parametrize("relative", [True, False])
def test_sliced_attention_equals_naive(relative):
    torch.manual_seed(0)
    attn = Attention(32, 2, (6, 3) if relative else None)
    for parameter in attn.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 8, 5, 32)  # not the size of the tables: they are interpolated
    with torch.inference_mode():
        expected = torch.stack([naive_attention(attn, part) for part in x])
        for budget in (1, 2 * 2 * 5 * 40, 3 * 2 * 2 * 5 * 40, 2**25):
            got = attn.attend(attn.project(x), budget)
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [None, 1.0])
def test_attention_with_gradients_equals_without(scale):
    """The path that writes the matrix out for training computes the same."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 20, 8).bfloat16()
    bias = torch.randn(1, 20).bfloat16()
    plain = attention(q, k, v, bias, scale)
    traced = attention(q.requires_grad_(), k, v, bias, scale)
    torch.testing.assert_close(traced, plain, atol=2e-2, rtol=2e-2)
    exact = attention(q.double(), k.double(), v.double(), bias.double(), scale)
    assert (traced - exact).norm() / exact.norm() < 1e-2


def test_chunks_train_alike():
    """Gradients, too, do not depend on the chunk."""
    grads = []
    for chunk in (None, 1):
        model = randomized(JOINT)
        model(*inputs(2, 3), chunk=chunk).square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-4)


def test_loss_weighs_hidden_and_valid_only():
    painting, target = torch.randn(2, 2, 3, 16, 16)
    hidden = torch.zeros(2, 2, 2, dtype=torch.bool)
    hidden[0, 1, 0] = True
    valid = torch.ones(2, 1, 16, 16)
    valid[0, 0, 8:, :4] = 0
    judged = (painting - target)[0, :, 8:, 4:8].abs()
    small = judged < 0.01
    expected = torch.where(small, judged**2 / 0.02, judged - 0.005).mean()
    torch.testing.assert_close(painting_loss(painting, target, hidden, valid), expected)
    assert painting_loss(painting, target, hidden & False, valid) == 0


def test_shapes_are_checked():
    model = SegGPT(JOINT)
    query, images, targets, semantic = inputs(1, 1)
    with pytest.raises(ValueError, match="multiples of 8"):
        model(query[..., :30], images, targets, semantic)
    with pytest.raises(ValueError, match="differ"):
        model(query, images, targets[:, :, :, :16], semantic)
    with pytest.raises(ValueError, match="the same height and width"):
        model(query[..., :16], images, targets, semantic)
    with pytest.raises(ValueError, match="2 prompts for 3 queries"):
        model(torch.zeros(3, 3, 32, 32), *inputs(1, 1, prompts=2)[1:])
    with pytest.raises(ValueError, match="together"):
        model(query, images, targets, semantic, query_targets=query)
    with pytest.raises(ValueError, match="example_attention"):
        replace(JOINT, example_attention="both")
    with pytest.raises(ValueError, match="relative_position"):
        replace(JOINT, example_attention="independent")
    with pytest.raises(ValueError, match="stem"):
        replace(JOINT, stem=(8, 16))


def test_official_size():
    with torch.device("meta"):
        model = SegGPT(SIZES["vit-large"])
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 370.7


def test_hidden_example_patches_reach_nobody():
    """Neither tokens nor copy path see what an example hides (training only)."""
    torch.manual_seed(0)
    config = replace(
        SIZES["small"], image_size=32, embed_dim=32, depth=2, num_heads=2, merge_after=0,
        taps=(1,), stem=(8, 8, 16), decoder_dim=16, copy_dim=8,
    )  # fmt: skip
    model = SegGPT(config).eval()
    query, image, target = (
        torch.randn(1, 3, 32, 32),
        torch.randn(1, 2, 3, 32, 32),
        torch.randn(2, 1, 2, 3, 32, 32),
    )
    hidden = torch.ones(1, 8, 4, dtype=torch.bool)
    hidden[:, 0] = False  # one row of the examples' patches is shown
    semantic = torch.tensor([True])
    target[1, ..., :8, :] = target[0, ..., :8, :]
    with torch.inference_mode():
        one, other = (
            model(query, image, t, semantic, hidden=hidden, query_targets=query) for t in target
        )
        assert torch.equal(one, other)
        target[1, ..., :8, :] += 1
        other = model(query, image, target[1], semantic, hidden=hidden, query_targets=query)
        assert not torch.equal(one, other)
