"""TRL's GRPO trainer with a CPU's rollouts and scores of its own; the algorithm stays TRL's.

TRL pads a whole rollout to its longest prompt and completion and computes every padded position, on a CPU
with its logits too. With prompts and answers of mixed length that is most of a training step.
"""

from typing import Any

import torch
from torch.nn.functional import pad
from transformers import Qwen3ForCausalLM
from trl import GRPOTrainer

from stages.engines.decoder import Decoder, Draw, can_decode
from stages.training.compact import group_by_length

Scores = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]


class CompactGRPOTrainer(GRPOTrainer):
    """Samples with our decoder, scores rows of like length side by side, has logits of completion tokens alone.

    Log-probabilities and gradients are TRL's up to the order of floating-point sums. On a GPU, and for a model
    other than the tiny base model's kind, everything is TRL's own.
    """

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: Any, has_tool_images: Any = False
    ) -> Any:
        """(completions, None) of the prompts, in which each stands `num_generations` times in a row."""
        model: Any = self.model
        if not can_decode(model):
            generate: Any = super()._generate_single_turn
            return generate(prompt_ids, images, multimodal_fields, num_generations, has_tool_images)
        limit = int(self.max_completion_length or 0)
        draw = Draw(self.temperature, self.top_p, torch.rand(len(prompt_ids), limit))
        model.eval()
        tokens = Decoder(model).decode(prompt_ids[::num_generations], num_generations, limit, draw, self.eos_token_ids)
        model.train()
        return tokens, None

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **others: Any,
    ) -> Scores:
        """(log-probabilities, entropies, auxiliary loss), the first two (rows, logits_to_keep), 0 where padded.

        `input_ids` and `attention_mask` are (rows, prompt + logits_to_keep), prompts padded left, completions right.
        """
        if not can_decode(model):
            scores: Scores = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **others
            )
            return scores
        groups = list(group_by_length(attention_mask.sum(dim=1)))
        scored = [
            score_rows(model, input_ids[rows], attention_mask[rows], logits_to_keep, self.temperature)
            for rows in groups
        ]
        back = torch.cat(groups).argsort()
        log_probs, entropies = (torch.cat(part)[back] for part in zip(*scored, strict=True))
        return log_probs, entropies if compute_entropy else None, None


def score_rows(
    model: Qwen3ForCausalLM,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    logits_to_keep: int,
    temperature: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probabilities, entropies) of the completion tokens, (rows, logits_to_keep), 0 where padded."""
    answered = attention_mask[:, -logits_to_keep:].bool()
    tokens, trained = align_left(input_ids, attention_mask, answered)
    # Padding stands right of every token, where causal attention does not look.
    hidden = model.model(input_ids=tokens).last_hidden_state[:, :-1]
    log_probs = (model.lm_head(hidden[trained[:, 1:]]) / temperature).log_softmax(dim=-1)
    chosen = log_probs.gather(1, tokens[trained].unsqueeze(1)).squeeze(1)
    entropies = -(log_probs.detach().exp() * log_probs.detach()).sum(dim=-1)
    empty = chosen.new_zeros(answered.shape)
    return empty.masked_scatter(answered, chosen), empty.masked_scatter(answered, entropies)


def align_left(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, answered: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, which of them are of the completion), each row moved to the first column, (rows, longest)."""
    lengths = attention_mask.sum(dim=1, keepdim=True)
    starts = attention_mask.argmax(dim=1, keepdim=True)
    places = torch.arange(int(lengths.max()))
    trained = (places >= lengths - answered.sum(dim=1, keepdim=True)) & (places < lengths)
    return pad(input_ids, (0, len(places))).gather(1, starts + places), trained
