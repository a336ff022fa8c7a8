"""TRL's GRPO trainer with a CPU's rollouts and scores of its own; the algorithm stays TRL's.

TRL pads a whole rollout to its longest prompt and completion and computes every padded position, on a CPU
with its logits too, and a prompt again for each of its completions. With prompts and answers of mixed length that is
most of a training step.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from safetensors.torch import save_file
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase, TrainerCallback
from trl import GRPOTrainer

from stages.contract import StepError
from stages.engines import name_draws
from stages.engines.decoder import Decoder, Draw, can_decode, draw_uniforms
from stages.rows import read_completion, user_turn
from stages.training.completion_scores import score_completions
from stages.training.objective import compute_output_loss

Scores = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
PROBE_ROWS = 8
MOST_DIFFERENCE = {"ours": 1e-3, "vllm": 0.2}
"""Mean difference of log-probabilities between sampler and trainer: rounding in float32 gives 1e-6; in bfloat16 two
implementations differ by some hundredths (TRL logs it as `sampling/sampling_logp_difference`)."""
MOST_ROWS = 1024
"""Completions decoded side by side beside training; a refresh asks for many more than a rollout has."""
DEAD = 1e-2
"""Rewards of a group that are equal up to rounding give advantages of up to 0.005."""


class OptimiserClock(TrainerCallback):
    """Adds the time of the optimiser's steps."""

    def __init__(self, seconds: defaultdict[str, float]) -> None:
        self.seconds, self.began = seconds, 0.0

    def on_pre_optimizer_step(self, *arguments: Any, **named: Any) -> None:
        self.began = time.perf_counter()

    def on_optimizer_step(self, *arguments: Any, **named: Any) -> None:
        self.seconds["optimiser"] += time.perf_counter() - self.began


class CompactGRPOTrainer(GRPOTrainer):
    """Samples with our decoder, scores completions of like length side by side and each prompt once.

    Log-probabilities and gradients are TRL's up to the order of floating-point sums. On a GPU, and for a model
    other than the tiny base model's kind, everything is TRL's own.
    """

    def __init__(self, *arguments: Any, ratio: Literal["token", "output"] = "token", **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.ratio = ratio
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """Where the time of this process went."""
        self.add_callback(OptimiserClock(self.seconds))
        self.drawn: torch.Tensor | None = None
        """Log-probabilities of the rollout in hand as its tokens were drawn, (rows, longest)."""

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        began, before = time.perf_counter(), sum(self.seconds.values())
        step: Any = super().training_step
        loss = step(*arguments, **named)
        self.seconds["train"] += time.perf_counter() - began - (sum(self.seconds.values()) - before)
        return loss

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        save: Any = super()._save_checkpoint
        with self.clock("checkpoint"):
            save(*arguments, **named)

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - began

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: Any, has_tool_images: Any = False
    ) -> Any:
        """(completions, None) of the prompts, in which each stands `num_generations` times in a row."""
        model: Any = self.model
        if not can_decode(model):
            generate: Any = super()._generate_single_turn
            with self.clock("decode"):
                return generate(prompt_ids, images, multimodal_fields, num_generations, has_tool_images)
        limit, asked = int(self.max_completion_length or 0), prompt_ids[::num_generations]
        seed, names = int(torch.randint(2**31, ())), name_draws([str(ids) for ids in asked])
        draw = Draw(self.temperature, self.top_p, draw_uniforms(seed, names, num_generations, limit))
        model.eval()
        decoder = Decoder(model)
        with self.clock("decode"):
            decoded = decoder.decode(asked, num_generations, limit, draw, self.eos_token_ids)
        self.seconds["prefill"] += decoder.prefill_seconds
        self.seconds["decode"] -= decoder.prefill_seconds
        self.drawn = pad_sequence([torch.tensor(row.log_probs) for row in decoded], batch_first=True)
        self.compare_log_probs(prompt_ids, [row.tokens for row in decoded])
        model.train()
        return [row.tokens for row in decoded], None

    def compare_log_probs(self, prompts: list[list[int]], completions: list[list[int]]) -> None:
        """Raises StepError unless sampler and trainer give some of the tokens drawn the same log-probabilities.

        An old copy of the weights, another temperature or another position in one of them shows here, and nowhere
        else: the run would learn from samples of a policy it does not have.
        """
        assert self.drawn is not None
        rows = range(0, len(prompts), max(1, len(prompts) // PROBE_ROWS))
        asked = pad_sequence([torch.tensor(prompts[row]) for row in rows], True, -1, padding_side="left")
        answers = pad_sequence([torch.tensor(completions[row]) for row in rows], True, -1)
        ids = torch.cat((asked, answers), dim=1)
        with torch.no_grad():
            scored, _ = score_completions(self.model, ids.clamp(min=0), ids >= 0, answers.shape[1], self.temperature)
        scored, drawn = scored[answers >= 0], self.drawn[list(rows), : answers.shape[1]][answers >= 0]
        self.check_hand_over(float((scored - drawn).abs().mean()), "ours")

    def check_hand_over(self, difference: float, sampler: str) -> None:
        self._metrics["train"]["sampling/log_prob_difference"].append(difference)
        if not difference <= MOST_DIFFERENCE[sampler]:
            raise StepError(
                f"sampler and trainer differ by {difference:.2g} in the log-probability of a token at step "
                f"{self.state.global_step}, expected at most {MOST_DIFFERENCE[sampler]:g}: the sampler does not have "
                "the policy's weights or temperature"
            )

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        if self.use_vllm:
            self.check_hand_over(self._metrics["train"]["sampling/sampling_logp_difference/mean"][-1], "vllm")
            # The paper has no such weights; with TRL's own setting the difference would not be measured either.
            batch["importance_sampling_ratio"] = torch.ones_like(batch["importance_sampling_ratio"])
        return batch

    def _calculate_rewards(self, *arguments: Any, **named: Any) -> Any:
        with self.clock("score"):
            return super()._calculate_rewards(*arguments, **named)

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
        Without gradients TRL asks for the reference model's, and for those of the policy that drew the tokens, which
        are known.
        """
        if not torch.is_grad_enabled() and model is self.model and self.drawn is not None:
            return self.drawn, None, None
        if not can_decode(model):
            scores: Scores = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **others
            )
            return scores
        score = partial(score_completions, model, input_ids, attention_mask, logits_to_keep, self.temperature)
        if torch.is_grad_enabled():
            return *score(), None
        with self.clock("reference"):
            return *score(), None

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        """TRL's loss; without KL only of the rows that have an advantage, since the others have no gradient."""
        share = 1.0
        if self.beta == 0:
            live = inputs["advantages"].abs() > DEAD
            share = float(live.float().mean())
            if not share:
                return sum(weight.sum() for weight in model.parameters() if weight.requires_grad) * 0.0
            inputs = select_rows(inputs, live)
        compute: Any = self._compute_output_loss if self.ratio == "output" else super()._compute_loss
        loss = share * compute(model, inputs)
        if not torch.isfinite(loss):
            self.refuse(loss, inputs)
        return loss

    def refuse(self, loss: torch.Tensor, inputs: Mapping[str, Any]) -> NoReturn:
        """Raises StepError; the batch is kept beside the checkpoints, so that the step can be computed again."""
        step = self.state.global_step
        path = Path(str(self.args.output_dir)) / f"refused-{step}.safetensors"
        save_file({name: v.contiguous() for name, v in inputs.items() if isinstance(v, torch.Tensor)}, path)
        raise StepError(
            f"the loss of step {step} is {loss.item()}, expected a finite number; its batch is in {path}. A lower "
            "learning_rate or max_grad_norm, or a higher beta, keeps the policy closer to where it began"
        )

    def _compute_output_loss(self, model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
        mask = inputs["completion_mask"]
        log_probs, entropies, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], mask], dim=1),
            mask.shape[1],
            compute_entropy=True,
        )
        old = inputs.get("old_per_token_logps", log_probs.detach())
        loss, shown = compute_output_loss(
            log_probs, old, inputs.get("ref_per_token_logps"), inputs["advantages"], mask, self.epsilon_low, self.beta
        )
        assert entropies is not None
        shown["entropy"] = float((entropies * mask).sum() / mask.sum())
        for name, value in shown.items():
            self._metrics["train"][name].append(value)
        return loss / self.current_gradient_accumulation_steps


def sample_policy(
    trainer: Any, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], num_generations: int, seed: int
) -> list[list[str]]:
    """Completions of each question as the trainer draws them; the random numbers of training stay as they were."""
    turns = [user_turn(question) for question in questions for _ in range(num_generations)]
    texts = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    asked = tokenizer(texts, add_special_tokens=False)["input_ids"]
    tokens = list[list[int]]()
    rows = max(1, MOST_ROWS // num_generations) * num_generations
    with torch.random.fork_rng():
        for start in range(0, len(asked), rows):
            torch.manual_seed(seed)
            tokens += trainer._generate_single_turn(asked[start : start + rows], None, {}, num_generations)[0]
    trainer.drawn = None
    written = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    completions = [read_completion(text, completion) for text, completion in zip(texts, written, strict=True)]
    return [completions[start : start + num_generations] for start in range(0, len(completions), num_generations)]


def select_rows(inputs: Mapping[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    """The batch cut down to some of its rows; what is no tensor of rows stays."""
    return {
        name: value[rows] if isinstance(value, torch.Tensor) and value.shape[:1] == rows.shape else value
        for name, value in inputs.items()
    }
