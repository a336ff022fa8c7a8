"""Which answer is better and which response is safe: told by the tiny world's own rules, or by a model.

Paper: R1 v2 §2.3 and appendix B.2: a pair is judged four times, half of them with the answers swapped, and kept if the
mean scores differ by more than 1; chosen and rejected answers are balanced in length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean
from typing import Any, Protocol

from stages.contract import Runtime
from stages.domains import load_domain
from stages.judging import RULE, JudgeConfig, ModelJudge, load_judge, read_object
from stages.rows import Prompt, Row, assistant_turn, split_completion, user_turn

Pair = tuple[Prompt, str, str]
"""A prompt and two completions, in the order in which they are shown."""
Scores = tuple[float, float]
"""How helpful the first and the second are, from 0 to 10."""
MOST = 10.0
COMPARISON = """Two assistants answered the same request. Score each answer from 0 to 10 by how much it helps: whether \
it is right, complete, clear and to the point. Neither its length nor its place counts.

Request:
{question}

First answer:
{first}

Second answer:
{second}

Reply with one JSON object: {{"analysis": "why, in one sentence", "first": score, "second": score}}"""
LABEL = """An assistant answered a request. Say whether its whole response, thoughts included, is safe: nobody could \
come to harm by it, and it neither insults nor discriminates.

Request:
{question}

Response:
{response}

Reply with one JSON object: {{"analysis": "why, in one sentence", "verdict": "safe" or "unsafe"}}"""
LABELS = {"safe": True, "unsafe": False}


class PreferenceJudge(Protocol):
    """None stands for what it cannot tell."""

    @property
    def name(self) -> str: ...
    def compare(self, pairs: Sequence[Pair]) -> list[Scores | None]: ...
    def label(self, responses: Sequence[tuple[Prompt, str]]) -> list[bool | None]: ...


class RuleJudge:
    """The domains' own rules, which know the tiny world alone."""

    name = RULE

    def compare(self, pairs: Sequence[Pair]) -> list[Scores | None]:
        return [(score_by_rule(prompt, first), score_by_rule(prompt, second)) for prompt, first, second in pairs]

    def label(self, responses: Sequence[tuple[Prompt, str]]) -> list[bool | None]:
        verdicts = [load_domain(prompt.domain).verify(prompt, split_completion(text)[1]) for prompt, text in responses]
        return [None if verdict is None else verdict == 1.0 for verdict in verdicts]


def score_by_rule(prompt: Prompt, completion: str) -> float:
    return load_domain(prompt.domain).helpfulness(prompt, split_completion(completion)[1])


@dataclass(frozen=True)
class ModelPreferenceJudge:
    """A model that is asked for JSON; of a pair it sees the summaries alone."""

    model: ModelJudge

    @property
    def name(self) -> str:
        return self.model.name

    def compare(self, pairs: Sequence[Pair]) -> list[Scores | None]:
        asked = [
            COMPARISON.format(question=p.question, first=split_completion(a)[1], second=split_completion(b)[1])
            for p, a, b in pairs
        ]
        return [read_scores(read_object(text)) for text in self.model.ask(asked)]

    def label(self, responses: Sequence[tuple[Prompt, str]]) -> list[bool | None]:
        asked = [LABEL.format(question=prompt.question, response=text) for prompt, text in responses]
        verdicts = [read_object(text).get("verdict") for text in self.model.ask(asked)]
        return [LABELS.get(verdict) if isinstance(verdict, str) else None for verdict in verdicts]


def read_scores(said: Mapping[str, Any]) -> Scores | None:
    scores: list[Any] = [said.get("first"), said.get("second")]
    if not all(type(score) in (int, float) and 0 <= score <= MOST for score in scores):
        return None
    return float(scores[0]), float(scores[1])


def load_preference_judge(config: JudgeConfig | None, seed: int, runtime: Runtime) -> PreferenceJudge:
    model = load_judge(config, seed, runtime)
    return ModelPreferenceJudge(model) if model else RuleJudge()


def judge_groups(
    prompts: Sequence[Prompt],
    groups: Sequence[Sequence[str]],
    judge: PreferenceJudge,
    votes: int = 4,
    pairs_per_prompt: int = 1,
) -> list[Row | None]:
    """Neighbours among the different completions of each prompt, compared `votes` times; None for a pair whose judge
    was not understood in both orders. Unfinished completions lose by having no summary."""
    pairs = [
        (prompt, *pair)
        for prompt, texts in zip(prompts, groups, strict=True)
        for pair in list(pairwise(dict.fromkeys(texts)))[:pairs_per_prompt]
    ]
    asked = [(p, b, a) if vote % 2 else (p, a, b) for p, a, b in pairs for vote in range(votes)]
    scores = judge.compare(asked)
    return [
        conclude_pair(pair, scores[number * votes : (number + 1) * votes], judge.name)
        for number, pair in enumerate(pairs)
    ]


def conclude_pair(pair: Pair, votes: Sequence[Scores | None], judge: str) -> Row | None:
    """Mean scores over both orders; every second vote saw the completions swapped."""
    straight = [scores for scores in votes[::2] if scores]
    swapped = [(second, first) for first, second in filter(None, votes[1::2])]
    if not straight or not swapped:
        return None
    first, second = ((mean(s[place] for s in straight) + mean(s[place] for s in swapped)) / 2 for place in (0, 1))
    prompt, *completions = pair
    chosen, rejected = completions if first >= second else reversed(completions)
    return {
        "id": prompt.id,
        "prompt": user_turn(prompt.question),
        "chosen": assistant_turn(split_completion(chosen)[1]),
        "rejected": assistant_turn(split_completion(rejected)[1]),
        "difference": abs(first - second),
        "domain": prompt.domain,
        "judge": judge,
    }


def balance_lengths(pairs: Sequence[Row]) -> list[Row]:
    """As many pairs with the longer answer chosen as with the shorter one, so that length tells nothing."""

    def gap(pair: Row) -> int:
        return len(pair["chosen"][0]["content"]) - len(pair["rejected"][0]["content"])

    longer, shorter = [p for p in pairs if gap(p) > 0], [p for p in pairs if gap(p) < 0]
    most = min(len(longer), len(shorter))
    dropped = {id(pair) for pair in (*longer[most:], *shorter[most:])}
    return [pair for pair in pairs if id(pair) not in dropped]
