"""The trainers: what is trained on, what is resumed, what is refused."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from datasets import Dataset
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from trl import GRPOTrainer, SFTTrainer

from stages.base_model import make_base_model
from stages.contract import ConfigError, DataError, StepError
from stages.domains.world import write_document
from stages.engines.decoder import Decoder
from stages.preference_reward import PreferenceReward
from stages.rewards import load_reward
from stages.rows import Row, assistant_turn, join_completion, user_turn
from stages.shards import hash_file
from stages.training import grpo_trainer, monitoring, pretraining
from stages.training.checkpoints import COMPLETE, newest_checkpoint, read_log, run_trainer
from stages.training.compact import IGNORED
from stages.training.completion_scores import score_completions
from stages.training.grpo import (
    make_arguments,
    permute_rewards,
    summarise_log,
    train_grpo,
)
from stages.training.grpo_trainer import CompactGRPOTrainer
from stages.training.monitoring import ZERO_BATCHES, count_reflection, watch_zeros
from stages.training.pretraining import AnswerTrainer, PackedBlocks, build_model
from stages.training.reward_model import RewardModel, split_held_out, train_pairwise, train_pointwise
from stages.training.settings import ReinforcementConfig, RewardModelConfig, SupervisedConfig
from stages.training.sft import CompactSFTTrainer, make_trainer
from tests import micro_model

GRPO = ReinforcementConfig(
    steps=4,
    prompts_per_step=2,
    num_generations=2,
    minibatches=2,
    reference_refresh=2,
    max_completion_length=8,
    save_steps=2,
)
REWARD_MODEL = RewardModelConfig(epochs=2, batch_size=8, learning_rate=3e-3, max_length=384, held_out=0.25)


@pytest.mark.parametrize("domain", ["math", "greetings"])
def test_only_the_completion_is_trained_on(micro_base: Path, tmp_path: Path, domain: str) -> None:
    prompts = micro_model.make_prompts(domain, 8)
    rows = [{"prompt": user_turn(p.question), "completion": assistant_turn(p.demonstration)} for p in prompts]
    trainer = make_trainer(micro_base, rows, micro_model.SFT, micro_model.make_context(tmp_path))
    trained, untrained = set[str](), set[str]()
    for batch in trainer.get_train_dataloader():
        for tokens, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            assert torch.all((labels == -100) | (labels == tokens))
            trained.add(trainer.processing_class.decode(tokens[labels != -100]))
            untrained.add(trainer.processing_class.decode(tokens[labels == -100], skip_special_tokens=True).strip())
    assert trained == {f"{prompt.demonstration}<|end|>" for prompt in prompts}
    assert untrained == {prompt.question for prompt in prompts}


def test_pretraining_is_a_function_of_its_config(micro_base: Path, tmp_path: Path) -> None:
    first, again = micro_model.read_weights(micro_base), micro_model.read_weights(micro_model.make_base(tmp_path))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert (micro_base / "tokenizer.json").read_text() == (tmp_path / "output" / "tokenizer.json").read_text()


def test_a_broken_off_pretraining_goes_on_to_the_same_weights(
    micro_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Exception):
        pass

    def break_off(*arguments: Any) -> None:
        raise Broken

    passes = MagicMock(wraps=AnswerTrainer.training_step)
    monkeypatch.setattr(AnswerTrainer, "training_step", lambda *arguments: passes(*arguments))
    context = micro_model.make_context(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(Broken):
        patched.setattr(pretraining, "SAVE_STEPS", 5)
        patched.setattr(pretraining, "save_policy", break_off)
        make_base_model(micro_model.BASE, context)
    saved = sorted(int(folder.name.partition("-")[2]) for folder in context.scratch_dir.glob("checkpoint-*"))
    for newer in saved[1:]:
        shutil.rmtree(context.scratch_dir / f"checkpoint-{newer}")
    whole = passes.call_count
    make_base_model(micro_model.BASE, context)
    assert len(saved) > 1 and passes.call_count - whole <= whole * (saved[-1] - saved[0]) / saved[-1]
    resumed, unbroken = micro_model.read_weights(context.output_dir), micro_model.read_weights(micro_base)
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)


def test_heads_of_the_first_layer_start_out_looking_back(micro_base: Path) -> None:
    config = micro_model.BASE.model_copy(update={"hidden_size": 128, "heads": 4, "attention_dropout": 0.0})
    torch.manual_seed(0)
    model = build_model(config, AutoTokenizer.from_pretrained(micro_base)).eval()
    model.set_attn_implementation("eager")
    tokens = torch.randint(0, config.vocabulary, (4, 64))
    attention = model(tokens, output_attentions=True).attentions[0].mean(0)
    for head, seen in enumerate(attention):
        by_distance = [torch.diagonal(seen, -distance)[8:].mean().item() for distance in range(8)]
        assert by_distance.index(max(by_distance)) == head + 1, by_distance


def test_the_loss_of_pretraining_is_that_of_the_trained_tokens(micro_base: Path, tmp_path: Path) -> None:
    """Logits of untrained tokens are never computed; the loss is the model's own all the same."""
    model = AutoModelForCausalLM.from_pretrained(micro_base).eval()
    documents = [write_document(f"{n} and 2?", f"{n}+2.", str(n + 2)) for n in range(8)]
    blocks = PackedBlocks(documents, AutoTokenizer.from_pretrained(micro_base), 64)
    batch = {name: torch.stack([block[name] for block in blocks]) for name in ("input_ids", "labels")}
    trainer = AnswerTrainer(model, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    loss = trainer.compute_loss(model, batch, num_items_in_batch=(batch["labels"] != IGNORED).sum())
    assert torch.allclose(loss, model(**batch).loss, rtol=1e-5)


def test_any_document_can_begin_a_block(micro_base: Path) -> None:
    """A model meets its prompts at the first position; packed by size alone, no short document stood there."""
    tokenizer = AutoTokenizer.from_pretrained(micro_base)
    documents = [write_document("Sum?", "1+2 " * (12 if n % 2 else 1), "3") for n in range(200)]
    blocks = PackedBlocks(documents, tokenizer, 96)
    firsts = [int((row == tokenizer.eos_token_id).nonzero()[0]) for row in blocks.input_ids]
    assert 0.2 < sum(length < 30 for length in firsts) / len(firsts) < 0.8


def write_checkpoint(folder: Path, complete: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    if complete:
        manifest = {"model.safetensors": hash_file(folder / "model.safetensors")}
        (folder / COMPLETE).write_text(json.dumps(manifest))
    return folder


def test_only_whole_checkpoints_are_resumed_from(tmp_path: Path) -> None:
    whole = write_checkpoint(tmp_path / "checkpoint-50")
    beyond = write_checkpoint(tmp_path / "checkpoint-200")
    damaged, unfinished = write_checkpoint(tmp_path / "checkpoint-100"), tmp_path / "checkpoint-150"
    (damaged / "model.safetensors").write_bytes(b"weighty")
    write_checkpoint(unfinished, complete=False)
    assert newest_checkpoint(tmp_path, lambda step: step < 200) == whole
    assert not beyond.exists()
    assert not damaged.exists() and not unfinished.exists()
    (whole / "model.safetensors").unlink()
    assert newest_checkpoint(tmp_path) is None


class StopEarly(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == 3


def test_a_training_that_ends_early_is_a_failure(micro_base: Path, tmp_path: Path) -> None:
    context = micro_model.make_context(tmp_path)
    trainer = make_trainer(micro_base, micro_model.make_sft_rows(40), micro_model.SFT, context)

    trainer.add_callback(StopEarly())
    with pytest.raises(StepError, match="3 of 20 steps"):
        run_trainer(trainer, context)


def test_a_row_longer_than_max_length_is_refused(micro_base: Path, tmp_path: Path) -> None:
    config = SupervisedConfig(max_length=20)
    with pytest.raises(DataError, match="max_length=20"):
        make_trainer(micro_base, micro_model.make_sft_rows(4), config, micro_model.make_context(tmp_path))


def test_grpo_runs_end_to_end_and_logs_the_parts_of_the_reward(
    micro_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An untrained policy solves nothing, which the log says; nor is it over-long, which is no fault."""
    monkeypatch.setattr(monitoring, "ZERO_BATCHES", 2)
    context = micro_model.make_context(tmp_path)
    weights = {**GRPO.reward_weights, "overlong": 0.1, "repetition": 0.1}
    config = GRPO.model_copy(update={"reward_weights": weights, "max_completion_length": 200})
    rewards = {name: load_reward(name) for name in weights}
    metrics = train_grpo(micro_base, micro_model.make_prompts("math", 12), rewards, config, context)
    warned = [message for message in caplog.messages if "batches in a row" in message]
    assert any("'accuracy'" in message for message in warned)
    assert not any("'overlong'" in message or "'repetition'" in message for message in warned)
    assert metrics["steps"] == 4 and metrics["completions"] == 16
    log = [json.loads(line) for line in (context.output_dir / "training_log.jsonl").read_text().splitlines()]
    logged = [line for line in log if "reward" in line]
    assert logged
    for name in weights:
        assert f"rewards/{name}/mean" in logged[-1] and f"rewards/{name}/mean" in metrics
    before, after = micro_model.read_weights(micro_base), micro_model.read_weights(context.output_dir)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_the_compact_loss_of_sft_is_that_of_trl(micro_base: Path, tmp_path: Path) -> None:
    rows = micro_model.make_sft_rows(40)
    trainer = make_trainer(micro_base, rows, micro_model.SFT, micro_model.make_context(tmp_path))
    model, batch = trainer.model.eval(), trainer.data_collator([trainer.train_dataset[n] for n in range(40)])
    assert len(set(batch["attention_mask"].sum(dim=1).tolist())) > 5
    found = []
    for cls in (SFTTrainer, CompactSFTTrainer):
        model.zero_grad()
        loss = cls.compute_loss(trainer, model, dict(batch), num_items_in_batch=torch.tensor(700))
        loss.backward()
        found.append((loss, torch.cat([weight.grad.flatten() for weight in model.parameters()])))
    for stock, compact in zip(*found, strict=True):
        assert torch.allclose(stock, compact, rtol=1e-4, atol=1e-5)


def test_compact_scores_and_gradients_are_those_of_trl(micro_base: Path, tmp_path: Path) -> None:
    """40 rows of mixed length, two of each prompt, among them one without an answer and one that fills both widths."""
    prompts = Dataset.from_list([prompt.to_row() for prompt in micro_model.make_prompts("math", 4)])
    config = GRPO.model_copy(update={"reward_weights": {"think_format": 1.0}, "temperature": 0.7})
    arguments = make_arguments(config, micro_model.make_context(tmp_path))
    trainer = CompactGRPOTrainer(str(micro_base), [load_reward("think_format")], arguments, prompts)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 300, (40, 50), generator=generator)
    starts, ends = (torch.randint(0, 20, (40, 1), generator=generator) for _ in range(2))
    ends[0], ends[1], starts[1] = 0, 30, 0
    ids[20:, :20], starts[20:] = ids[:20, :20], starts[:20]
    places = torch.arange(50)
    mask = ((places >= starts) & (places < 20 + ends)).long()
    answered = mask[:, 20:].bool()
    model = trainer.model.eval()
    found = []
    for cls in (GRPOTrainer, CompactGRPOTrainer):
        log_probs, entropies, _ = cls._get_per_token_logps_and_entropies(
            trainer, model, ids, mask, 30, compute_entropy=True
        )
        model.zero_grad()
        log_probs[answered].sum().backward()
        gradients = torch.cat([weight.grad.flatten() for weight in model.parameters()])
        found.append((log_probs[answered], entropies[answered], gradients))
    for stock, compact in zip(*found, strict=True):
        assert torch.allclose(stock, compact, rtol=1e-4, atol=1e-4)


def test_gradients_of_shared_prompts_are_the_same_each_time(micro_base: Path) -> None:
    """Sums over the completions of a prompt in an order of their own would end a resumed run elsewhere."""
    model = AutoModelForCausalLM.from_pretrained(micro_base)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 300, (4, 160), generator=generator).repeat(16, 1)
    ids[:, 150:] = torch.randint(4, 300, (64, 10), generator=generator)
    found, before = list[torch.Tensor](), torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        for _ in range(8):
            model.zero_grad()
            log_probs, _ = score_completions(model, ids, torch.ones_like(ids), 10, 1.0)
            log_probs.sum().backward()
            found.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(gradients, found[0]) for gradients in found)


def test_rollouts_on_a_cpu_stand_beside_their_prompts(micro_base: Path, tmp_path: Path) -> None:
    """Each group of greedy completions is what `generate` says to its prompt; the policy is left in training mode."""
    prompts = Dataset.from_list([prompt.to_row() for prompt in micro_model.make_prompts("math", 4)])
    config = GRPO.model_copy(update={"reward_weights": {"think_format": 1.0}})
    arguments = make_arguments(config, micro_model.make_context(tmp_path))
    trainer = CompactGRPOTrainer(str(micro_base), [load_reward("think_format")], arguments, prompts)
    # A nucleus of one token, of a model that has more to say than a token or two.
    trainer.top_p = 1e-9
    torch.nn.init.normal_(trainer.model.get_input_embeddings().weight)
    asked = [[5, 60, 61], [7, 80], [9, 100, 101, 102]]
    trainer.model.train()
    completions, _ = trainer._generate_single_turn([ids for ids in asked for _ in range(2)], None, {}, 2)
    assert trainer.model.training
    greedy = GenerationConfig(
        max_new_tokens=GRPO.max_completion_length, eos_token_id=trainer.eos_token_ids, pad_token_id=0
    )
    model = trainer.model.eval()
    expected = [model.generate(torch.tensor([ids]), generation_config=greedy)[0, len(ids) :].tolist() for ids in asked]
    assert completions == [ids for ids in expected for _ in range(2)]
    assert len(set(map(tuple, expected))) > 1


def test_a_longer_grpo_goes_on_where_a_shorter_one_ended(micro_base: Path, tmp_path: Path) -> None:
    """Also one whose last rollout was cut: that rollout is drawn again."""
    changes = {"steps": 9, "save_steps": 4, "beta": 0.01, "reference_refresh": 6, "learning_rate": 1e-3}
    config, prompts = GRPO.model_copy(update=changes), micro_model.make_prompts("math", 40)
    rewards = {name: load_reward(name) for name in config.reward_weights}
    for name, steps in (("extended", 5), ("extended", 9), ("whole", 9)):
        context = micro_model.make_context(tmp_path / name)
        train_grpo(micro_base, prompts, rewards, config.model_copy(update={"steps": steps}), context)
    extended, whole = (micro_model.read_weights(tmp_path / name / "output") for name in ("extended", "whole"))
    assert all(torch.equal(extended[name], whole[name]) for name in whole)


def test_grpo_is_set_to_the_papers_objective(tmp_path: Path) -> None:
    arguments = make_arguments(ReinforcementConfig(), micro_model.make_context(tmp_path))
    expected = {
        "loss_type": "grpo",
        "importance_sampling_level": "token",
        "scale_rewards": "group",
        "use_bias_correction_kl": False,
        "num_generations": 16,
        "num_iterations": 1,
        "beta": 0.001,
        "epsilon": 10.0,
        "sync_ref_model": True,
        "ref_model_mixup_alpha": 1.0,
        "ref_model_sync_steps": 400,
        "learning_rate": 3e-6,
        "temperature": 1.0,
        "generation_batch_size": 8192,
    }
    assert {name: getattr(arguments, name) for name in expected} == expected
    step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    assert step == 32 * 16


def test_rollouts_with_vllm_want_a_gpu(micro_base: Path, tmp_path: Path) -> None:
    config = GRPO.model_copy(update={"vllm": True})
    with pytest.raises(ConfigError, match="expected vllm: false there"):
        train_grpo(micro_base, micro_model.make_prompts("math", 4), {}, config, micro_model.make_context(tmp_path))


def test_without_kl_there_is_no_reference_to_replace(tmp_path: Path) -> None:
    arguments = make_arguments(ReinforcementConfig(beta=0.0), micro_model.make_context(tmp_path))
    assert not arguments.sync_ref_model


def test_checkpoints_that_would_cut_a_rollout_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"save_steps=3 .*minibatches=2"):
        ReinforcementConfig(save_steps=3, minibatches=2)
    ReinforcementConfig(save_steps=4, minibatches=2)


def test_a_reward_that_pays_nobody_for_long_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    paid = {"paid": 0.0}
    watched = watch_zeros(lambda completions, **columns: [0.0, None, paid["paid"]], "think_format")
    for _ in range(2):
        for _ in range(ZERO_BATCHES - 1):
            watched(completions=["a", "b", "thoughts</think> 4"])
        assert not caplog.messages
        paid["paid"] = 1.0
        assert watched(completions=["a"] * 3) == [0.0, None, 1.0]
        paid["paid"] = 0.0
    for _ in range(ZERO_BATCHES + 1):
        watched(completions=["a", "b", "thoughts</think> 4"])
    (message,) = caplog.messages
    assert "'think_format' was 0" in message and "thoughts</think> 4" in message and "chat template" in message


def test_words_of_reflection_are_counted_by_language() -> None:
    completions = ["Wait, check: 4.", "等一下，不对。", "Nothing.", "attente"]
    assert count_reflection(completions, ["en", "zh", "en", "fr"]) == {"en": [2, 0], "zh": [2]}


def make_grpo_trainer(base: Path, folder: Path, **changes: Any) -> CompactGRPOTrainer:
    prompts = Dataset.from_list([prompt.to_row() for prompt in micro_model.make_prompts("math", 4)])
    config = GRPO.model_copy(update={"reward_weights": {"think_format": 1.0}, **changes})
    arguments = make_arguments(config, micro_model.make_context(folder))
    rewards = [load_reward("think_format")]
    return CompactGRPOTrainer(str(base), rewards, arguments, prompts, ratio=config.ratio)


@pytest.mark.parametrize("ratio", ["token", "output"])
def test_the_loss_is_the_printed_one(micro_base: Path, tmp_path: Path, ratio: str) -> None:
    """R1 eq. 1-3 for the whole output and DeepSeekMath eq. 3-4 for tokens, written out in float64."""
    trainer = make_grpo_trainer(micro_base, tmp_path, ratio=ratio, epsilon=0.2, beta=0.1)
    generator = torch.Generator().manual_seed(0)
    lengths, advantages = [5, 1, 8, 3] * 3, [1.5, -0.7, 0.2, -1.0, 0.9, -1.1] * 2
    mask = (torch.arange(8) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(4, 300, (12, 12), generator=generator)
    attention = torch.cat([torch.ones(12, 4, dtype=torch.long), mask], dim=1)
    now, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model.eval(), ids, attention, 8)
    spread = torch.randn((2, 12, 8), generator=generator) * 0.8
    old, reference = (now + spread).detach() * mask
    batch = {
        "prompt_ids": ids[:, :4],
        "prompt_mask": attention[:, :4],
        "completion_ids": ids[:, 4:],
        "completion_mask": mask,
        "advantages": torch.tensor(advantages),
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    trainer.current_gradient_accumulation_steps = 1
    losses, clipped = list[float](), 0
    for row, (length, advantage) in enumerate(zip(lengths, advantages, strict=True)):
        policy, before, anchor = (part[row, :length].double().tolist() for part in (now, old, reference))
        if ratio == "output":
            policy, before, anchor = [sum(policy)], [sum(before)], [sum(anchor)]
        terms = list[float]()
        for at in range(len(policy)):
            rho = math.exp(policy[at] - before[at])
            cut = min(max(rho, 0.8), 1.2)
            clipped += rho * advantage > cut * advantage
            kl = math.exp(anchor[at] - policy[at]) - (anchor[at] - policy[at]) - 1
            terms.append(min(rho * advantage, cut * advantage) - 0.1 * kl)
        losses.append(-sum(terms) / len(terms))
    assert clipped
    assert trainer._compute_loss(trainer.model, batch).item() == pytest.approx(sum(losses) / 12, rel=1e-5)


def test_rows_without_advantage_are_left_out_without_kl_and_only_then(micro_base: Path, tmp_path: Path) -> None:
    """Loss and gradients are those of all rows."""
    ids = torch.randint(4, 300, (6, 12), generator=torch.Generator().manual_seed(0))
    batch = {
        "prompt_ids": ids[:, :4],
        "prompt_mask": torch.ones(6, 4, dtype=torch.long),
        "completion_ids": ids[:, 4:],
        "completion_mask": torch.ones(6, 8, dtype=torch.long),
        "advantages": torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0, 0.002]),
        "num_items_in_batch": torch.tensor(48),
    }
    trainer = make_grpo_trainer(micro_base, tmp_path, beta=0.0)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.eval()
    found = []
    for compute in (trainer._compute_loss, partial(GRPOTrainer._compute_loss, trainer)):
        trainer.model.zero_grad()
        loss = compute(trainer.model, dict(batch))
        loss.backward()
        found.append((loss, torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()])))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-3)
    assert torch.linalg.norm(found[0][1] - found[1][1]) < 5e-3 * torch.linalg.norm(found[1][1])
    dead = {**batch, "advantages": torch.zeros(6)}
    loss = trainer._compute_loss(trainer.model, dead)
    loss.backward()
    assert loss == 0.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], r"'odd' returned 1 values for 4 completions; expected one for each"),
        ([1.0, math.nan, 0.0, None], r"'odd' returned nan for completion 1; expected a finite number or None"),
    ],
)
def test_a_reward_that_returns_nonsense_stops_the_run(
    micro_base: Path, tmp_path: Path, values: list[float | None], message: str
) -> None:
    def odd(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return values

    config = GRPO.model_copy(update={"reward_weights": {"odd": 1.0}, "minibatches": 1})
    prompts = micro_model.make_prompts("math", 12)
    with pytest.raises(StepError, match=message):
        train_grpo(micro_base, prompts, {"odd": odd}, config, micro_model.make_context(tmp_path))


def test_a_reward_that_can_judge_nothing_trains_nothing(micro_base: Path, tmp_path: Path) -> None:
    def silent(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return [None] * len(completions)

    config = GRPO.model_copy(update={"reward_weights": {"silent": 1.0}, "beta": 0.0, "learning_rate": 1e-2})
    prompts, context = micro_model.make_prompts("math", 12), micro_model.make_context(tmp_path)
    train_grpo(micro_base, prompts, {"silent": silent}, config, context)
    before, after = micro_model.read_weights(micro_base), micro_model.read_weights(context.output_dir)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_batch(micro_base: Path, tmp_path: Path) -> None:
    trainer = make_grpo_trainer(micro_base, tmp_path)
    trainer.current_gradient_accumulation_steps = 1
    batch = {
        "prompt_ids": torch.full((2, 3), 60),
        "prompt_mask": torch.ones(2, 3, dtype=torch.long),
        "completion_ids": torch.full((2, 4), 61),
        "completion_mask": torch.ones(2, 4, dtype=torch.long),
        "advantages": torch.tensor([1.0, math.nan]),
        "ref_per_token_logps": torch.zeros(2, 4),
        "num_items_in_batch": torch.tensor(8),
    }
    with pytest.raises(StepError, match=r"the loss of step 0 is nan, .* its batch is in .*refused-0.safetensors"):
        trainer._compute_loss(trainer.model, batch)
    kept = load_file(tmp_path / "scratch" / "refused-0.safetensors")
    assert all(torch.equal(kept[name], batch[name]) for name in ("prompt_ids", "completion_ids"))


def test_a_sampler_with_other_weights_stops_the_run(
    micro_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_grpo_trainer(micro_base, tmp_path)
    asked = [[5, 60, 61], [5, 60, 61], [7, 80], [7, 80]]
    trainer._generate_single_turn(asked, None, {}, 2)
    stale = AutoModelForCausalLM.from_pretrained(micro_base)
    with torch.no_grad():
        stale.model.embed_tokens.weight.mul_(1.05)
    monkeypatch.setattr(grpo_trainer, "Decoder", lambda model: Decoder(stale))
    with pytest.raises(StepError, match="does not have the policy's weights or temperature"):
        trainer._generate_single_turn(asked, None, {}, 2)


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValidationError, match="num_generations"):
        ReinforcementConfig(num_generations=1)


def test_permuted_rewards_keep_their_values_and_lose_their_place() -> None:
    def reward(completions: Sequence[str], **columns: Any) -> list[float | None]:
        return [float(text) for text in completions]

    numbers = [str(number) for number in range(50)]
    permuted = permute_rewards(reward, seed=0)(numbers, trainer_state=TrainerState(global_step=3))
    assert permuted == permute_rewards(reward, seed=0)(numbers, trainer_state=TrainerState(global_step=3))
    assert permuted != permute_rewards(reward, seed=0)(numbers, trainer_state=TrainerState(global_step=4))
    assert sorted(map(float, numbers)) == sorted(value or 0.0 for value in permuted)
    assert permuted != reward(numbers)


def make_pairs(count: int) -> list[Row]:
    """The longer, thankful answer is the better one: plain to see for any classifier."""
    return [
        {
            "prompt": user_turn(f"Question {number}?"),
            "chosen": assistant_turn("Yes yes yes yes, happy to help you with that."),
            "rejected": assistant_turn("No."),
        }
        for number in range(count)
    ]


def test_pairwise_reward_model(micro_base: Path, tmp_path: Path) -> None:
    context = micro_model.make_context(tmp_path)
    metrics = train_pairwise(micro_base, make_pairs(48), REWARD_MODEL, context)
    assert (metrics["pairs"], metrics["held_out"]) == (36, 12)
    assert metrics["agreement"] > 0.9
    model = AutoModelForSequenceClassification.from_pretrained(context.output_dir)
    assert model.config.num_labels == 1
    good, bad = RewardModel(context.output_dir, context).score(
        ["Question?"] * 2, ["Yes yes yes yes, happy to help you with that.", "No."]
    )
    assert 0 < bad < good < 1


def test_pointwise_reward_model(micro_base: Path, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": pair["prompt"],
            "completion": pair[column],
            "safe": column == "chosen",
        }
        for pair in make_pairs(24)
        for column in ("chosen", "rejected")
    ]
    context = micro_model.make_context(tmp_path)
    metrics = train_pointwise(micro_base, rows, REWARD_MODEL, context)
    assert (metrics["responses"], metrics["held_out"]) == (36, 12)
    assert metrics["agreement"] > 0.9
    assert AutoModelForSequenceClassification.from_pretrained(context.output_dir).config.num_labels == 1
    assert "<think>" in AutoTokenizer.from_pretrained(context.output_dir).get_vocab()


def test_the_loss_of_labels_does_not_depend_on_the_device_batch(micro_base: Path, tmp_path: Path) -> None:
    """Left to Trainer, the means of the micro-batches of one step are added up."""
    rows = [
        {"prompt": pair["prompt"], "completion": pair[column], "safe": column == "chosen"}
        for pair in make_pairs(24)
        for column in ("chosen", "rejected")
    ]
    config = REWARD_MODEL.model_copy(update={"batch_size": 8, "epochs": 3, "learning_rate": 1e-6})
    norms = list[list[float]]()
    for device_batch in (2, 8):
        context = micro_model.make_context(tmp_path / str(device_batch))
        runtime = context.runtime.model_copy(update={"per_device_batch_size": device_batch})
        train_pointwise(micro_base, rows, config, replace(context, runtime=runtime))
        log = read_log(context.output_dir / "training_log.jsonl")
        norms.append([line["grad_norm"] or 0.0 for line in log if "grad_norm" in line])
    assert norms[0] and norms[0] == pytest.approx(norms[1], rel=0.2)


def test_rows_too_long_for_a_reward_model_are_counted(micro_base: Path, tmp_path: Path) -> None:
    rows = make_pairs(48)
    rows[5] = {**rows[5], "rejected": assistant_turn("No. " * 200)}
    metrics = train_pairwise(micro_base, rows, REWARD_MODEL, micro_model.make_context(tmp_path))
    assert metrics["too_long"] == 1 and metrics["pairs"] + metrics["held_out"] == 47
    short = REWARD_MODEL.model_copy(update={"max_length": 3})
    with pytest.raises(DataError, match=r"the shortest row has \d+ tokens, expected at most max_length=3"):
        train_pairwise(micro_base, rows, short, micro_model.make_context(tmp_path))


def test_no_question_is_on_both_sides_of_the_held_out_cut() -> None:
    train, held_out = split_held_out([*make_pairs(8), *make_pairs(8)], REWARD_MODEL)
    asked = [{row["prompt"][0]["content"] for row in rows} for rows in (train, held_out)]
    assert len(held_out) == 4 and not asked[0] & asked[1]
    with pytest.raises(DataError, match="at least 2"):
        split_held_out(make_pairs(1), REWARD_MODEL)


@pytest.mark.parametrize(
    ("source", "expected"),
    [("helpful", [3.0, None, None, 0.0]), ("safety", [None, 17.0, None, None])],
)
def test_a_preference_reward_scores_its_set_alone(source: Any, expected: list[float | None]) -> None:
    """The helpful model reads the summary, the safety model all of it; hundredths do not count."""

    def measure(questions: Sequence[str], responses: Sequence[str]) -> list[float]:
        assert all(question == "Q" for question in questions)
        return [len(response) + 0.04 for response in responses]

    texts = [join_completion("a", "bcd"), join_completion("", "c"), join_completion("a", "b"), "<think>unfinished"]
    rewarded = PreferenceReward(source, measure)(
        [assistant_turn(text) for text in texts],
        [user_turn("Q")] * 4,
        reward=["helpful", "safety", "rule", "helpful"],
        id=["1", "2", "3", "4"],
    )
    assert rewarded == expected


def test_a_reward_that_judged_no_row_is_left_out_of_the_summary() -> None:
    config = ReinforcementConfig(steps=2, prompts_per_step=2, num_generations=2)
    log = [{"step": 1, "reward": 1.0, "rewards/safety/mean": None}]
    summary = summarise_log(log, config, config.steps)
    assert summary["reward"] == 1.0
    assert "rewards/safety/mean" not in summary
