"""Log-probabilities of completions with each different prompt computed once, however many completions go on from it.

TRL computes the prompt again for each completion of a group, pads all to the longest, and has logits of every position.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from stages.training.compact import group_by_length


@dataclass(frozen=True)
class Prefixes:
    """What completions need of the prompts before them, with gradients."""

    caches: list[tuple[torch.Tensor, torch.Tensor]]
    """Keys and values of each layer, (prompts, heads, longest, head width), padded right."""
    last: torch.Tensor
    """Hidden state of each prompt's last token, (prompts, width), from which completions go on."""
    lengths: torch.Tensor


def score_completions(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, keep: int, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probabilities, entropies) of the last `keep` columns, (rows, keep), 0 where padded.

    `input_ids` and `attention_mask` are (rows, prompt + keep), prompts padded left, completions right. The model is a
    Qwen3 with full attention, as `can_decode` says.
    """
    answered = attention_mask[:, -keep:].bool()
    marked = input_ids[:, :-keep].masked_fill(attention_mask[:, :-keep] == 0, -1)
    prompts, prompt_of = torch.unique(marked, dim=0, return_inverse=True)
    prefixes = read_prefixes(model, [prompt[prompt >= 0] for prompt in prompts])
    groups = list(group_by_length(answered.sum(dim=1)))
    scored = []
    for rows in groups:
        columns = max(1, int(answered[rows].sum(dim=1).max()))
        wanted = answered[rows, :columns]
        flat = score_tokens(model, prefixes, prompt_of[rows], input_ids[rows, -keep:][:, :columns], wanted, temperature)
        scored.append([pad(scatter_rows(wanted, values), (0, keep - columns)) for values in flat])
    back = torch.cat(groups).argsort()
    log_probs, entropies = (torch.cat(part)[back] for part in zip(*scored, strict=True))
    return log_probs, entropies


def read_prefixes(model: Any, prompts: list[torch.Tensor]) -> Prefixes:
    """One pass over the prompts, those of like length side by side."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    groups = list(group_by_length(lengths))
    back = torch.cat(groups).argsort()
    # Padding stands right of every token, where causal attention does not look.
    made = [
        model.model(input_ids=pad_sequence([prompts[row] for row in rows], batch_first=True), use_cache=True)
        for rows in groups
    ]
    last = [
        part.last_hidden_state[range(len(rows)), lengths[rows] - 1] for rows, part in zip(groups, made, strict=True)
    ]
    layers = zip(*(part.past_key_values.layers for part in made), strict=True)
    caches = [(join([p.keys for p in parts])[back], join([p.values for p in parts])[back]) for parts in layers]
    return Prefixes(caches, torch.cat(last)[back], lengths)


def join(parts: list[torch.Tensor]) -> torch.Tensor:
    """Parts (rows, heads, columns, width) below each other, padded right to the longest."""
    longest = max(part.shape[2] for part in parts)
    return torch.cat([pad(part, (0, 0, 0, longest - part.shape[2])) for part in parts])


def score_tokens(
    model: Any,
    prefixes: Prefixes,
    prompt_of: torch.Tensor,
    tokens: torch.Tensor,
    wanted: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probabilities, entropies) of the wanted tokens, row by row; `tokens` and `wanted` (rows, columns)."""
    lengths, columns = prefixes.lengths[prompt_of], tokens.shape[1]
    longest = int(lengths.max())
    # The last token is only followed by others if it is the only one: a model takes no empty rows.
    read = tokens[:, : max(1, columns - 1)]
    places = torch.arange(read.shape[1])
    before = (torch.arange(longest) < lengths[:, None])[:, None].expand(-1, len(places), -1)
    own = (places[:, None] >= places).expand(len(tokens), -1, -1)
    # With index_select gradients are summed in order; indexing sums them as threads come.
    past = [
        (keys[:, :, :longest].index_select(0, prompt_of), values[:, :, :longest].index_select(0, prompt_of))
        for keys, values in prefixes.caches
    ]
    hidden = model.model(
        input_ids=read,
        position_ids=lengths[:, None] + places,
        attention_mask=torch.cat((before, own), dim=2)[:, None],
        past_key_values=DynamicCache(past),
        use_cache=True,
    ).last_hidden_state
    hidden = torch.cat((prefixes.last.index_select(0, prompt_of)[:, None], hidden), dim=1)[:, :columns]
    log_probs = (model.lm_head(hidden[wanted]) / temperature).log_softmax(dim=-1)
    chosen = log_probs.gather(1, tokens[wanted].unsqueeze(1)).squeeze(1)
    return chosen, -(log_probs.detach().exp() * log_probs.detach()).sum(dim=-1)


def scatter_rows(wanted: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The values where they are wanted, 0 elsewhere; (rows, columns)."""
    return values.new_zeros(wanted.shape).masked_scatter(wanted, values)
