"""A reward model that learns from the policy's answers: on what, when, and that nobody else notices."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from stages.all_scenario_rl import AllScenarioRLConfig, JudgedRefresh, plan_refresh
from stages.contract import ConfigError, StepContext
from stages.rows import Row, assistant_turn, completion_text, user_turn, write_rows
from stages.training.checkpoints import read_log
from stages.training.grpo import train_grpo
from stages.training.hacking_monitor import Watch
from stages.training.reward_model import RewardModel, train_pairwise
from stages.training.reward_refresh import Refresh, RefreshReward
from stages.training.settings import ReinforcementConfig, RewardModelConfig, RewardRefresh
from tests import micro_model

CONFIG = ReinforcementConfig(
    steps=6,
    prompts_per_step=2,
    num_generations=2,
    minibatches=1,
    beta=0.0,
    learning_rate=1e-3,
    max_completion_length=12,
    save_steps=2,
    reward_weights={"please": 1.0},
)
TRAINING = RewardModelConfig(epochs=4, batch_size=8, learning_rate=3e-3, max_length=384, held_out=0.25)
QUESTIONS = [f"Question {number}?" for number in range(24)]


def compare(better: str, worse: str) -> list[Row]:
    return [
        {"prompt": user_turn(question), "chosen": assistant_turn(better), "rejected": assistant_turn(worse)}
        for question in QUESTIONS
    ]


@pytest.fixture(scope="module")
def reward_model(micro_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finds "No." worse than "Yes yes."."""
    context = micro_model.make_context(tmp_path_factory.mktemp("reward_model"))
    train_pairwise(micro_base, compare("Yes yes.", "No."), TRAINING.model_copy(update={"epochs": 16}), context)
    return context.output_dir


LONG = compare("Yes. " * 400, "No.")
Judging = Callable[[Sequence[Sequence[str]]], list[Row]]


class Judge:
    """Has learnt better than the reward model: "No." is the better answer, whatever the policy says."""

    def __init__(self) -> None:
        self.seen: list[Sequence[Sequence[str]]] = []

    def __call__(self, groups: Sequence[Sequence[str]]) -> list[Row]:
        self.seen.append(groups)
        return compare("No.", "Yes yes.")


def train(base: Path, reward_model: Path, folder: Path, judge: Judging, every: int = 4, **named: Any) -> list[Any]:
    context = micro_model.make_context(folder)
    model = RewardModel(reward_model, context)

    def please(completions: Sequence[Any], prompts: Sequence[Any], **columns: Any) -> list[float | None]:
        asked = [prompt[-1]["content"] for prompt in prompts]
        return list(model.score(asked, [completion_text(completion) for completion in completions]))

    config = RewardRefresh(steps=every, replay_share=0.25, training=TRAINING)
    refresh = Refresh(config, model, QUESTIONS, judge, [*compare("Yes yes.", "No."), *LONG], num_generations=2)
    prompts = micro_model.make_prompts("math", 40)
    metrics = train_grpo(base, prompts, {"please": please}, CONFIG, context, refresh=refresh, **named)
    return [metrics, read_log(context.output_dir / "training_log.jsonl"), model]


def test_the_reward_model_learns_what_the_judge_says_of_the_policys_answers(
    micro_base: Path, reward_model: Path, tmp_path: Path
) -> None:
    judge = Judge()
    metrics, _, model = train(micro_base, reward_model, tmp_path, judge)
    assert [len(groups) for groups in judge.seen] == [24] and all(len(group) == 2 for group in judge.seen[0])
    # 18 of 24 pairs are trained on, and 6 old ones make a quarter of them.
    assert metrics["reward_refreshes"] == [{"step": 4, "pairs": 24, "agreement_before": 0, "agreement_after": 1}]
    no, yes = model.score(QUESTIONS[:1] * 2, ["No.", "Yes yes."])
    assert no > yes


def test_a_refresh_leaves_the_random_numbers_of_training_alone(
    micro_base: Path, reward_model: Path, tmp_path: Path
) -> None:
    """What is drawn before and right after it is drawn alike in a run that has none."""
    _, with_refresh, _ = train(micro_base, reward_model, tmp_path / "with", Judge())
    _, without, _ = train(micro_base, reward_model, tmp_path / "without", Judge(), every=400)
    entropies, rewards = (
        [[line[name] for line in log if name in line] for log in (with_refresh, without)]
        for name in ("entropy", "reward")
    )
    assert entropies[0][:5] == entropies[1][:5] and len(set(entropies[0])) > 1
    assert rewards[0][:4] == rewards[1][:4] and rewards[0][4] != rewards[1][4]


def test_the_monitor_begins_again_with_the_new_reward_model(
    micro_base: Path, reward_model: Path, tmp_path: Path
) -> None:
    """Scores fall and rewards rise over the refresh: of two reward models, which tells nothing."""
    dev = micro_model.make_prompts("greetings", 20, "dev")
    scores, rewards = iter([0.9, 0.9, 0.9, 0.1, 0.1]), iter([0.1, 0.1, 0.1, 0.8, 0.8])
    watch = Watch(dev, lambda texts: [next(scores)] * len(texts), lambda texts: next(rewards))
    metrics, _, _ = train(micro_base, reward_model, tmp_path, Judge(), watch=watch)
    assert [reading["step"] for reading in metrics["monitor"]["readings"]] == [4, 6]
    assert "hacked_at" not in metrics["monitor"]


def test_a_run_hacked_where_a_refresh_is_due_ends_there(micro_base: Path, reward_model: Path, tmp_path: Path) -> None:
    """A refresh would begin with other readings; and a run resumed from a checkpoint of that step would go on."""
    dev = micro_model.make_prompts("greetings", 20, "dev")
    scores, rewards = iter([0.9, 0.9, 0.1]), iter([0.1, 0.1, 0.8])
    watch = Watch(dev, lambda texts: [next(scores)] * len(texts), lambda texts: next(rewards))
    judge = Judge()
    metrics, _, _ = train(micro_base, reward_model, tmp_path, judge, watch=watch)
    assert (metrics["monitor"]["hacked_at"], metrics["monitor"]["rolled_back_to"], metrics["steps"]) == (4, 0, 0)
    assert not judge.seen
    assert [path.name for path in (tmp_path / "scratch").glob("checkpoint-*")] == ["checkpoint-2"]


def test_replay_asks_no_question_that_is_held_out(
    micro_base: Path, reward_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, measured = list[Row](), list[Row]()
    monkeypatch.setattr(RewardModel, "learn", lambda model, pairs, config: learnt.extend(pairs))

    def measure(refresh: RefreshReward, pairs: Sequence[Row]) -> float:
        measured.extend(pairs)
        return 0.0

    monkeypatch.setattr(RefreshReward, "measure", measure)
    train(micro_base, reward_model, tmp_path, Judge())
    asked, held_out = ({row["prompt"][-1]["content"] for row in rows} for rows in (learnt, measured))
    assert len(learnt) == 24 and held_out and not asked & held_out


def test_pairs_that_are_too_long_are_left_out(
    micro_base: Path, reward_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New ones and old ones."""
    learnt: list[Row] = []
    monkeypatch.setattr(RewardModel, "learn", lambda model, pairs, config: learnt.extend(pairs))

    def judge(groups: Sequence[Sequence[str]]) -> list[Row]:
        pairs = compare("No.", "Yes yes.")
        return [{**row, "chosen": assistant_turn("No. " * 400)} if n % 2 else row for n, row in enumerate(pairs)]

    metrics, _, _ = train(micro_base, reward_model, tmp_path, judge)
    # 12 of 24 fit, 9 of them are trained on, with 3 old ones.
    assert [refresh["pairs"] for refresh in metrics["reward_refreshes"]] == [12]
    assert len(learnt) == 12 and all(len(row["chosen"][0]["content"]) < 20 for row in learnt)


def test_a_refresh_without_pairs_changes_nothing(micro_base: Path, reward_model: Path, tmp_path: Path) -> None:
    metrics, _, model = train(micro_base, reward_model, tmp_path, lambda groups: [])
    assert metrics["reward_refreshes"] == [{"step": 4, "pairs": 0}]
    kept = micro_model.read_weights(reward_model)
    assert all(torch.equal(values, kept[name]) for name, values in model.model.state_dict().items() if name in kept)


def test_a_refresh_between_checkpoints_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"reward_refresh\.steps=100 falls between .* multiple of save_steps=400"):
        AllScenarioRLConfig(reward_refresh=JudgedRefresh(steps=100))


def test_several_processes_are_refused(
    micro_base: Path, reward_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="reward_refresh trains the reward model in one process"):
        train(micro_base, reward_model, tmp_path, Judge())


def test_stage_4_judges_helpful_prompts_by_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = micro_model.make_prompts("factual_qa", 12)
    write_rows([prompt.to_row() for prompt in facts], tmp_path / "prompts", "train")
    write_rows(compare("a", "b"), tmp_path / "pairs", "train")
    context = StepContext({"prompts": tmp_path / "prompts", "pairs": tmp_path / "pairs"}, tmp_path, tmp_path)
    config = AllScenarioRLConfig(reward_refresh=JudgedRefresh(prompts=8), num_generations=4)
    assert plan_refresh(None, AllScenarioRLConfig(), context) is None
    refresh = plan_refresh(None, config, context)
    assert len(refresh.questions) == 8 and refresh.num_generations == 4 and len(refresh.replay) == len(QUESTIONS)
    right = {prompt.question: prompt.demonstration for prompt in facts}
    answers = [
        [right[question], f"<think>\n</think>\n{'No idea. ' * (n % 2 * 20)}"]
        for n, question in enumerate(refresh.questions)
    ]
    pairs = refresh.judge(answers)
    assert pairs and all(pair["difference"] > 1 for pair in pairs)
