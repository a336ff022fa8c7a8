"""Decoding of a small Qwen3 on a CPU, where `generate` spends its time between the operations, not in them.

One prefill for each prompt, keys and values in one preallocated tensor, finished rows dropped from the batch,
and random numbers by row and position, so that neither dropping rows nor the size of a batch changes a sample.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import linear, pad, rms_norm, scaled_dot_product_attention, silu
from transformers import Qwen3ForCausalLM

from stages.engines import seed_draw

COMPACT_AT = 0.25
"""Share of finished rows at which the others move together."""


def can_decode(model: Any) -> bool:
    """Whether `Decoder` knows this model: Qwen3 in float32 on a CPU, with full attention."""
    return (
        isinstance(model, Qwen3ForCausalLM)
        and (model.device.type, model.dtype) == ("cpu", torch.float32)
        and not model.config.use_sliding_window
    )


@dataclass(frozen=True)
class Draw:
    """How a token is chosen from its distribution."""

    temperature: float
    """0 takes the likeliest."""
    top_p: float
    uniforms: torch.Tensor
    """Numbers in [0, 1), (rows, positions)."""

    def choose(self, logits: torch.Tensor, rows: torch.Tensor, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(a token, its log-probability) for each row of `logits` (len(rows), vocabulary).

        Log-probabilities are of the distribution at this temperature (1 if greedy), before the nucleus is cut out.
        """
        probabilities = (logits / (self.temperature or 1.0)).softmax(dim=-1)
        top, tokens = probabilities.max(dim=-1)
        if self.temperature == 0:
            return tokens, top.log()
        # Where one token fills the nucleus there is nothing to draw.
        open_rows = (top < self.top_p).nonzero().squeeze(1)
        nucleus = keep_nucleus(probabilities[open_rows], self.top_p).cumsum(dim=-1)
        wanted = self.uniforms[rows[open_rows], position].unsqueeze(1) * nucleus[:, -1:]
        drawn = torch.searchsorted(nucleus, wanted, right=True).squeeze(1)
        tokens[open_rows] = drawn.clamp(max=logits.shape[-1] - 1)
        return tokens, probabilities.gather(1, tokens.unsqueeze(1)).squeeze(1).log()


def draw_uniforms(seed: int, names: Sequence[str], n: int, positions: int) -> torch.Tensor:
    """Numbers in [0, 1), (len(names) * n, positions): a function of seed, name of the draw, sample and position."""
    keys = [(seed_draw(seed, name), sample) for name in names for sample in range(n)]
    generators = (np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, sample])) for key, sample in keys)
    return torch.from_numpy(np.stack([generator.random(positions, dtype=np.float32) for generator in generators]))


def keep_nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest set of likeliest tokens that holds `top_p`; the others become 0."""
    if top_p == 1:
        return probabilities
    ordered, tokens = probabilities.sort(dim=-1, descending=True)
    ordered[ordered.cumsum(dim=-1) - ordered >= top_p] = 0
    return torch.zeros_like(probabilities).scatter(-1, tokens, ordered)


@dataclass(frozen=True)
class Decoded:
    """One completion, the token that closed it included."""

    tokens: list[int]
    log_probs: list[float]
    """As the tokens were drawn."""


@dataclass(frozen=True)
class Layer:
    """Weights of one decoder layer, joined where they read the same input."""

    input_norm: torch.Tensor
    query_key_value: torch.Tensor
    bias: torch.Tensor | None
    head_norm: torch.Tensor
    """(query heads + key heads, 1, head width)."""
    output: Any
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: Any


class Decoder:
    """A policy as it is now; made anew when its weights change."""

    def __init__(self, model: Qwen3ForCausalLM) -> None:
        self.model: Any = model
        self.config: Any = model.config
        self.layers = [join_weights(layer) for layer in model.model.layers]
        self.prefill_seconds = 0.0
        """Of all calls so far."""

    @torch.inference_mode()
    def decode(
        self, prompts: Sequence[Sequence[int]], n: int, limit: int, draw: Draw, ends: Sequence[int]
    ) -> list[Decoded]:
        """`n` completions of each prompt, side by side, each closed by one of `ends` or of `limit` tokens."""
        began = time.perf_counter()
        logits, cache, visible = self._prefill(prompts, n, limit)
        self.prefill_seconds += time.perf_counter() - began
        column = visible.shape[-1] - limit
        tokens, log_probs = torch.full((len(logits), limit), ends[0]), torch.zeros(len(logits), limit)
        rows, closing = torch.arange(len(logits)), torch.tensor(ends)
        done = torch.zeros(len(rows), dtype=torch.bool)
        for position in range(limit):
            chosen, log_probs[rows, position] = draw.choose(logits, rows, position)
            tokens[rows, position] = chosen
            done |= torch.isin(chosen, closing)
            if done.all() or position + 1 == limit:
                break
            if done.float().mean() >= COMPACT_AT:
                going = (~done).nonzero().squeeze(1)
                cache, visible = keep_rows(cache, going, column + position), visible[going]
                rows, chosen, done = rows[going], chosen[going], done[going]
            logits = self._step(chosen, cache, visible, column + position)
        return [cut_after(row, scores, ends) for row, scores in zip(tokens.tolist(), log_probs.tolist(), strict=True)]

    def _prefill(
        self, prompts: Sequence[Sequence[int]], n: int, limit: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(next logits, cache, visible columns) of the prompts, each repeated for its `n` completions.

        The cache is (layers, key and value, rows, heads, columns, head width); prompts are padded left.
        """
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        made = self.model(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1)
        heads, size = self.config.num_key_value_heads, self.config.head_dim
        cache = torch.empty(len(self.layers), 2, len(prompts) * n, heads, width + limit, size)
        for own, layer in zip(cache, made.past_key_values.layers, strict=True):
            own[0, :, :, :width] = layer.keys.repeat_interleave(n, dim=0)
            own[1, :, :, :width] = layer.values.repeat_interleave(n, dim=0)
        visible = pad(mask.bool(), (0, limit), value=True).repeat_interleave(n, dim=0)
        return made.logits[:, -1].repeat_interleave(n, dim=0), cache, visible[:, None, None]

    def _step(self, tokens: torch.Tensor, cache: torch.Tensor, visible: torch.Tensor, column: int) -> torch.Tensor:
        """Logits after one more token of each row, whose keys and values go into `column`."""
        model, eps = self.model.model, self.config.rms_norm_eps
        hidden = model.embed_tokens(tokens)
        cos, sin = model.rotary_emb(hidden, torch.tensor([[column]]))
        seen = visible[..., : column + 1]
        for layer, own in zip(self.layers, cache, strict=True):
            normed = rms_norm(hidden, hidden.shape[-1:], layer.input_norm, eps)
            hidden = hidden + layer.output(self._attend(layer, normed, own, seen, cos, sin))
            normed = rms_norm(hidden, hidden.shape[-1:], layer.mlp_norm, eps)
            gate, up = linear(normed, layer.gate_up).chunk(2, dim=-1)
            hidden = hidden + layer.down(silu(gate) * up)
        logits: torch.Tensor = self.model.lm_head(model.norm(hidden))
        return logits

    def _attend(
        self,
        layer: Layer,
        normed: torch.Tensor,
        own: torch.Tensor,
        seen: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
    ) -> torch.Tensor:
        """What the heads read, (rows, heads * width); query heads of one key head share its rows as one call."""
        heads, size, last = self.config.num_key_value_heads, self.config.head_dim, seen.shape[-1] - 1
        joined = linear(normed, layer.query_key_value, layer.bias).view(len(normed), -1, 1, size)
        rotated, values = joined[:, :-heads], joined[:, -heads:]
        rotated = rms_norm(rotated, (size,), None, self.config.rms_norm_eps) * layer.head_norm
        half = torch.cat((-rotated[..., size // 2 :], rotated[..., : size // 2]), dim=-1)
        rotated = rotated * cos + half * sin
        own[0, :, :, last : last + 1] = rotated[:, -heads:]
        own[1, :, :, last : last + 1] = values
        queries = rotated[:, :-heads].view(len(normed), heads, -1, size)
        read = scaled_dot_product_attention(queries, own[0, :, :, : last + 1], own[1, :, :, : last + 1], attn_mask=seen)
        return read.reshape(len(normed), -1)


def keep_rows(cache: torch.Tensor, rows: torch.Tensor, columns: int) -> torch.Tensor:
    """The cache of some rows. Only the first `columns` are copied; the others hold nothing yet."""
    layers, parts, _, heads, width, size = cache.shape
    kept = cache.new_empty(layers, parts, len(rows), heads, width, size)
    kept[..., :columns, :] = cache[:, :, rows, :, :columns]
    return kept


def join_weights(layer: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    config, size = attention.config, attention.head_dim
    norms = (attention.q_norm.weight, config.num_attention_heads), (attention.k_norm.weight, config.num_key_value_heads)
    return Layer(
        input_norm=layer.input_layernorm.weight,
        query_key_value=torch.cat([projection.weight for projection in projections]),
        bias=torch.cat([p.bias for p in projections]) if attention.q_proj.bias is not None else None,
        head_norm=torch.cat([weight.expand(heads, 1, size) for weight, heads in norms]),
        output=attention.o_proj,
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        down=mlp.down_proj,
    )


def cut_after(tokens: list[int], log_probs: list[float], ends: Sequence[int]) -> Decoded:
    """What stands up to the first of `ends`, which is included."""
    length = next((number for number, token in enumerate(tokens, 1) if token in ends), len(tokens))
    return Decoded(tokens[:length], log_probs[:length])
