"""Stage 4: judged pairs, labels and the mix of prompts."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError

from stages import all_scenario_rl
from stages.all_scenario_rl import (
    AllScenarioRLConfig,
    HelpfulPairsConfig,
    SafetyLabelsConfig,
    average_reward,
    judge_by_rule,
    make_helpful_pairs,
    make_safety_labels,
    mix_prompts,
    pick_dev_prompts,
)
from stages.contract import DataError, StepContext
from stages.engines import Sampling
from stages.judging import JudgeConfig, ModelJudge
from stages.preference_judging import (
    ModelPreferenceJudge,
    Pair,
    RuleJudge,
    Scores,
    balance_lengths,
    judge_groups,
)
from stages.preference_reward import PreferenceReward
from stages.rows import Row, assistant_turn, join_completion, read_rows, split_completion, write_rows
from tests.micro_model import make_prompts
from tests.scripted_engine import Answer, ScriptedEngine

FACT = make_prompts("factual_qa", 1)[0]
DOMAINS = ("math", "factual_qa", "safety")


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    made = [prompt for domain in DOMAINS for prompt in make_prompts(domain, 30)]
    write_rows([prompt.to_row() for prompt in made], tmp_path / "prompts", "train")
    output = tmp_path / "out"
    output.mkdir()
    return StepContext({"policy": tmp_path / "policy", "prompts": tmp_path / "prompts"}, output, tmp_path)


def only(judged: Sequence[Row | None]) -> Row:
    (pair,) = judged
    assert pair is not None
    return pair


def script(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> ScriptedEngine:
    engine = ScriptedEngine(answer)
    monkeypatch.setattr(all_scenario_rl, "load_engine", lambda name, model_dir, runtime: engine)
    return engine


def test_a_pair_is_judged_on_summaries_by_the_rule() -> None:
    right = split_completion(FACT.demonstration)[1]
    texts = [join_completion(right, "No idea."), join_completion("Hm.", right)]
    pair = only(judge_groups([FACT], [texts], RuleJudge()))
    assert pair["judge"] == "rule"
    assert (pair["chosen"], pair["rejected"]) == (assistant_turn(right), assistant_turn("No idea."))
    assert pair["difference"] > 1


class PlaceJudge(RuleJudge):
    """Prefers what stands first; `silent` are the numbers of the votes it does not give."""

    name = "place"

    def __init__(self, silent: Sequence[int] = ()) -> None:
        self.silent, self.shown = silent, list[tuple[str, str]]()

    def compare(self, pairs: Sequence[Pair]) -> list[Scores | None]:
        self.shown += [(first, second) for _, first, second in pairs]
        return [None if number in self.silent else (9.0, 3.0) for number in range(len(pairs))]


def test_a_judge_that_prefers_the_first_answer_decides_nothing() -> None:
    judge = PlaceJudge()
    assert only(judge_groups([FACT], [["a", "b"]], judge))["difference"] == 0
    assert judge.shown == [("a", "b"), ("b", "a")] * 2


@pytest.mark.parametrize(("silent", "is_judged"), [((0,), True), ((0, 1), True), ((1, 3), False), ((0, 2), False)])
def test_a_pair_is_judged_if_both_orders_were_understood(silent: Sequence[int], is_judged: bool) -> None:
    """Each order counts half, however many of its votes were understood."""
    (pair,) = judge_groups([FACT], [["a", "b"]], PlaceJudge(silent))
    assert (pair is not None) == is_judged and (pair is None or pair["difference"] == 0)


def test_a_model_compares_summaries_and_labels_whole_responses() -> None:
    def answer(question: str, number: int) -> str:
        if "Response:" in question:
            return json.dumps({"verdict": "safe" if "Hm." in question else "no idea"})
        first, second = question.index("good"), question.index("bad")
        return json.dumps({"first": 8 if first < second else 2, "second": 2 if first < second else 8})

    engine = ScriptedEngine(answer)
    judge = ModelPreferenceJudge(ModelJudge("model", engine, Sampling(n=1), 0))
    pair = only(judge_groups([FACT], [[join_completion("Hm.", "bad"), join_completion("Hm.", "good")]], judge))
    assert (pair["chosen"], pair["difference"], pair["judge"]) == (assistant_turn("good"), 6.0, "model")
    assert len(engine.asked) == 4 and all(FACT.question in asked and "Hm." not in asked for asked in engine.asked)
    assert judge.label([(FACT, join_completion("Hm.", "a")), (FACT, "b")]) == [True, None]


@pytest.mark.parametrize(
    "said",
    [
        "garbage",
        "{}",
        '{"first": 3}',
        '{"first": "3", "second": 4}',
        '{"first": true, "second": 4}',
        '{"first": 3, "second": 11}',
        '{"first": -1, "second": 4}',
        '{"first": NaN, "second": 4}',
    ],
)
def test_scores_that_are_none_are_not_counted(said: str) -> None:
    judge = ModelPreferenceJudge(ModelJudge("model", ScriptedEngine(lambda question, number: said), Sampling(n=1), 0))
    assert judge.compare([(FACT, "a", "b")]) == [None]


def test_a_judge_that_is_not_understood_is_counted(context: StepContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six prompts it says nothing of two, and prefers the long answer to two and the short one to two."""
    policy = script(monkeypatch, lambda question, number: join_completion("", ("short", "a long answer")[number]))

    def answer(question: str, number: int) -> str:
        kind = next(n for n, prompt in enumerate(policy.asked) if prompt in question) % 3
        if kind == 0:
            return "garbage"
        long_is_first = question.index("long") < question.index("short")
        return json.dumps({"first": 9 if long_is_first == (kind == 1) else 1, "second": 5})

    monkeypatch.setattr("stages.judging.load_engine", lambda name, path, runtime: ScriptedEngine(answer))
    config = HelpfulPairsConfig(prompts=6, sampling=Sampling(n=2), judge=JudgeConfig(path="models/judge"))
    metrics = make_helpful_pairs(config, context)
    assert metrics == {"judged": 6, "not_understood": 2, "clear": 4, "pairs": 4, "length_balanced": 0}
    rows = read_rows(context.output_dir, "train")
    assert Counter(row["chosen"][0]["content"] for row in rows) == {"short": 2, "a long answer": 2}
    assert {(row["judge"], row["difference"]) for row in rows} == {("judge", 4.0)}


def test_a_judge_that_says_nothing_is_said(context: StepContext, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, lambda question, number: join_completion("Hm.", "Sure." * (number + 1)))
    monkeypatch.setattr("stages.judging.load_engine", lambda name, path, runtime: ScriptedEngine(lambda q, n: "Well."))
    judge = JudgeConfig(path="models/judge")
    with pytest.raises(DataError, match=r"of 3 judged pairs 0 .*\(of 3 of them the judge said nothing"):
        make_helpful_pairs(HelpfulPairsConfig(prompts=3, sampling=Sampling(n=2), judge=judge), context)
    with pytest.raises(DataError, match=r"of 6 responses 0 are labelled safe and 0 unsafe.*\(of 6 of them"):
        make_safety_labels(SafetyLabelsConfig(prompts=3, sampling=Sampling(n=2), judge=judge), context)


def test_one_set_of_servers_is_for_one_model() -> None:
    with pytest.raises(ValidationError, match="openai is named for two models"):
        HelpfulPairsConfig(engine="openai", judge=JudgeConfig(path="judge", engine="openai"))
    with pytest.raises(ValidationError, match="openai is named for two models"):
        SafetyLabelsConfig(engine="openai", judge=JudgeConfig(path="judge", engine="openai"))


def test_only_clear_pairs_of_helpful_prompts_are_kept(context: StepContext, monkeypatch: pytest.MonkeyPatch) -> None:
    gold = {p.question: p.demonstration for domain in DOMAINS[1:] for p in make_prompts(domain, 30)}
    unclear = sorted(gold)[::2]
    wrong = {0: join_completion("", "No."), 1: join_completion("", "I do not know. " * 20)}

    def answer(question: str, number: int) -> str:
        """One wrong answer shorter than the right one and one longer; both wrong where it is unclear."""
        if number == 0 or question in unclear:
            return wrong[(number + len(question)) % 2]
        return gold[question]

    engine = script(monkeypatch, answer)
    metrics = make_helpful_pairs(HelpfulPairsConfig(prompts=40, sampling=Sampling(n=2)), context)
    rows = read_rows(context.output_dir, "train")
    assert set(engine.asked) <= set(gold) and len(engine.asked) == 40
    assert metrics["judged"] == 40 and metrics["clear"] == sum(question not in unclear for question in engine.asked)
    assert metrics["pairs"] == len(rows) == metrics["clear"] - metrics["length_balanced"]
    assert rows and all(row["difference"] > 1 for row in rows)
    assert not {row["prompt"][0]["content"] for row in rows} & set(unclear)
    lengths = [len(row["chosen"][0]["content"]) > len(row["rejected"][0]["content"]) for row in rows]
    assert lengths.count(True) == lengths.count(False)


def test_lengths_are_balanced() -> None:
    def pair(chosen: str, rejected: str) -> Row:
        return {"chosen": assistant_turn(chosen), "rejected": assistant_turn(rejected)}

    longer, shorter, equal = pair("aaa", "b"), pair("a", "bbb"), pair("a", "b")
    assert balance_lengths([longer, pair("aaaa", "b"), equal, shorter]) == [longer, equal, shorter]
    assert balance_lengths([longer, longer]) == []


def test_pairs_that_all_look_alike_are_refused(context: StepContext, monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, lambda question, number: join_completion("", "No." + "!" * number))
    with pytest.raises(DataError, match=r"of 5 judged pairs 0 differ by more than 1\.0.*raise helpful_pairs\.prompts"):
        make_helpful_pairs(HelpfulPairsConfig(prompts=5, sampling=Sampling(n=2)), context)


def test_labels_are_of_safety_prompts_and_whole_responses(
    context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [join_completion("Hm.", "Sorry, I cannot help with that."), join_completion("Hm.", "Sure.")]
    script(monkeypatch, lambda question, number: texts[min(number, 1)])
    metrics = make_safety_labels(SafetyLabelsConfig(prompts=4, sampling=Sampling(n=3)), context)
    assert metrics == {"responses": 8, "safe": 4, "unsafe": 4, "not_understood": 0}
    rows = read_rows(context.output_dir, "train")
    assert {(row["completion"][0]["content"], row["safe"]) for row in rows} == {(texts[0], True), (texts[1], False)}
    harmful = {prompt.question for prompt in make_prompts("safety", 30) if prompt.reward == "safety"}
    assert {row["prompt"][0]["content"] for row in rows} <= harmful


@pytest.mark.parametrize(("summary", "kind"), [("Sure.", "unsafe"), ("Sorry, I cannot help with that.", "safe")])
def test_labels_of_one_kind_alone_are_refused(
    context: StepContext, monkeypatch: pytest.MonkeyPatch, summary: str, kind: str
) -> None:
    script(monkeypatch, lambda question, number: join_completion("Hm.", summary))
    with pytest.raises(DataError, match=rf"of 3 responses .* 3 {kind}|3 are labelled {kind}"):
        make_safety_labels(SafetyLabelsConfig(prompts=3), context)


def test_a_set_without_prompts_is_named(tmp_path: Path, context: StepContext) -> None:
    write_rows([prompt.to_row() for prompt in make_prompts("math", 3)], tmp_path / "only_math", "train")
    lacking = StepContext({**context.inputs, "prompts": tmp_path / "only_math"}, context.output_dir, tmp_path)
    with pytest.raises(DataError, match="no prompts of the helpful set"):
        make_helpful_pairs(HelpfulPairsConfig(), lacking)


@pytest.mark.parametrize("rule", [1.0, 2.0, 6.0])
def test_prompts_are_mixed_in_proportion(rule: float) -> None:
    """Also where a set has fewer prompts than its part of the visits."""
    shares = {"rule": rule, "helpful": 1, "safety": 1}
    config = AllScenarioRLConfig(steps=10, prompts_per_step=8, minibatches=1, shares=shares, preference_share=1.0)
    prompts = [prompt for domain in DOMAINS for prompt in make_prompts(domain, 30)]
    mixed = mix_prompts(prompts, config)
    assert len(mixed) == 80
    assert Counter(prompt.reward for prompt in mixed)["rule"] == pytest.approx(80 * rule / (rule + 2), abs=1)
    visits = Counter(prompt.id for prompt in mixed if prompt.reward == "rule").values()
    assert max(visits) - min(visits) <= 1
    assert mixed == mix_prompts(prompts, config)
    assert mixed != mix_prompts(prompts, config.model_copy(update={"seed": 1}))


def test_the_monitor_asks_dev_prompts_that_reward_models_reward(context: StepContext) -> None:
    config = AllScenarioRLConfig(monitor_prompts=20)
    assert pick_dev_prompts(context, config) == []
    dev = [prompt.to_row() for domain in DOMAINS for prompt in make_prompts(domain, 15, "dev")]
    write_rows(dev, context.inputs["prompts"], "dev")
    picked = pick_dev_prompts(context, config)
    assert len(picked) == 20 and {prompt.reward for prompt in picked} == {"helpful", "safety"}
    assert pick_dev_prompts(context, config.model_copy(update={"monitor_prompts": 0})) == []


def test_answers_are_scored_by_rule_and_by_the_reward_model_of_their_set() -> None:
    prompts = [*make_prompts("factual_qa", 2, "dev"), *make_prompts("safety", 2, "dev")]
    texts = [prompt.demonstration for prompt in prompts]
    assert judge_by_rule(prompts, texts) == [1.0] * 4
    assert judge_by_rule(prompts, [join_completion("", "No idea, sorry, none at all.")] * 2 + texts[2:])[:2] == [
        0.0,
        0.0,
    ]
    rewards = [
        PreferenceReward("helpful", lambda q, r: [0.2] * len(q)),
        PreferenceReward("safety", lambda q, r: [0.6] * len(q)),
    ]
    expected = [0.2 if prompt.reward == "helpful" else 0.6 for prompt in prompts]
    assert 0.2 < average_reward(prompts, texts, rewards) == pytest.approx(sum(expected) / 4)


def test_preferences_come_last() -> None:
    """R1 v2 §3.2.2: 1,300 steps of rules, then 400 of all sets."""
    prompts = [prompt for domain in DOMAINS for prompt in make_prompts(domain, 30)]
    mixed = mix_prompts(prompts, AllScenarioRLConfig(steps=17, prompts_per_step=8, minibatches=1))
    assert len(mixed) == 17 * 8
    assert {prompt.reward for prompt in mixed[: 13 * 8]} == {"rule"}
    assert {prompt.reward for prompt in mixed[13 * 8 :]} == {"rule", "helpful", "safety"}


def test_a_set_without_a_share_is_not_needed() -> None:
    shares = {"rule": 1, "helpful": 1}
    config = AllScenarioRLConfig(steps=4, prompts_per_step=2, minibatches=1, shares=shares, preference_share=1.0)
    prompts = [*make_prompts("math", 3), *make_prompts("greetings", 3)]
    assert Counter(prompt.reward for prompt in mix_prompts(prompts, config)) == {"rule": 4, "helpful": 4}


def test_every_set_is_needed() -> None:
    with pytest.raises(DataError, match="needs prompts rewarded by 'helpful'"):
        mix_prompts(make_prompts("math", 3), AllScenarioRLConfig())
