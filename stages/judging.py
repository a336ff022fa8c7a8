"""Whether sampled answers are right and worth learning from: by rule, and by a model where there is no rule.

The model is asked twice, with reference and answer in either order, and believed only where it says the same twice.
Paper: R1 v2 §3.3.1: a model compares with the reference and answers in JSON.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from stages.contract import Runtime, StepError
from stages.engines import Engine, EngineName, Sampling, load_engine
from stages.filters import Candidate, TextRules, find_fault_before_judging, find_fault_of_style, score_answers
from stages.rows import split_completion

RULE = "rule"
OBJECT = re.compile(r"\{[^{}]*\}")
VERDICTS = {"correct": 1.0, "incorrect": 0.0}
QUESTION = """Two people answered a question. Say whether both answers come to the same conclusion.

Question:
{question}

First answer:
{first}

Second answer:
{second}

Reply with one JSON object: {{"analysis": "why, in one sentence", "verdict": "correct" or "incorrect"}}, where \
"correct" means that the conclusions are the same."""


class ModelConfig(BaseModel):
    """A model beside the policy."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: str
    """Its checkpoint folder; with `openai` its configuration, template and tokenizer are enough."""
    engine: EngineName = "transformers"
    """Engine that samples from it."""


class JudgeConfig(ModelConfig):
    """A model that judges what no rule can judge."""

    sampling: Sampling = Sampling(n=1, temperature=0.0, max_completion_length=2048)
    """How its verdicts are drawn; one for each question."""


@dataclass(frozen=True)
class Verdict:
    """What became of one candidate."""

    reason: str = ""
    """Why it was rejected; empty if it was not."""
    accuracy: float | None = None
    judge: str = ""
    """Who judged it: `rule`, the name of the judging model, or nobody."""


@dataclass(frozen=True)
class ModelJudge:
    """Compares answers with the reference answer."""

    name: str
    engine: Engine
    sampling: Sampling
    seed: int

    def score(self, candidates: Sequence[Candidate]) -> list[float | None]:
        """1.0 the same conclusion, 0.0 another one, None where the judge contradicts itself or is not understood."""
        pairs = [(c.prompt.answer, split_completion(c.text)[1]) for c in candidates]
        questions = [c.prompt.question for c in candidates]
        asked = [
            QUESTION.format(question=question, first=pair[order], second=pair[1 - order])
            for order in (0, 1)
            for question, pair in zip(questions, pairs, strict=True)
        ]
        verdicts = [parse_verdict(text) for text in self.ask(asked)]
        both = zip(verdicts[: len(candidates)], verdicts[len(candidates) :], strict=True)
        return [first if first == second else None for first, second in both]

    def ask(self, questions: Sequence[str]) -> list[str]:
        """An answer to each, empty where there is none."""
        sampling = self.sampling.model_copy(update={"n": 1})
        answers = self.engine.sample(questions, sampling, self.seed) if questions else []
        if len(answers) != len(questions):
            raise StepError(
                f"judge '{self.name}' gave {len(answers)} answers, expected {len(questions)}: its engine fails"
            )
        return [answer[0].text if answer else "" for answer in answers]


def load_judge(config: JudgeConfig | None, seed: int, runtime: Runtime) -> ModelJudge | None:
    if config is None:
        return None
    path = Path(config.path)
    return ModelJudge(path.name, load_engine(config.engine, path, runtime), config.sampling, seed)


def parse_verdict(text: str) -> float | None:
    verdict = read_object(text).get("verdict")
    return VERDICTS.get(verdict) if isinstance(verdict, str) else None


def read_object(text: str) -> Mapping[str, Any]:
    """The last JSON object in a judge's answer; empty if there is none."""
    thoughts, summary = split_completion(text)
    for found in reversed(OBJECT.findall(summary or thoughts)):
        try:
            return dict(json.loads(found))
        except json.JSONDecodeError:
            continue
    return {}


def judge_candidates(
    candidates: Sequence[Candidate], rules: TextRules, judge: ModelJudge | None = None
) -> list[Verdict]:
    """Each filter in order; an answer is judged only if it can be read, its style looked at only if it is right."""
    faults = [find_fault_before_judging(candidate) for candidate in candidates]
    readable = [number for number, fault in enumerate(faults) if not fault]
    scores = zip(readable, score_answers([candidates[number] for number in readable]), strict=True)
    verdicts = [Verdict(fault) for fault in faults]
    for number, score in scores:
        verdicts[number] = Verdict("", score, RULE if score is not None else "")
    unjudged = [number for number in readable if verdicts[number].accuracy is None]
    if judge:
        opinions = judge.score([candidates[number] for number in unjudged])
        for number, score in zip(unjudged, opinions, strict=True):
            verdicts[number] = Verdict("", score, judge.name)
    return [conclude(c, verdict, rules) for c, verdict in zip(candidates, verdicts, strict=True)]


def conclude(candidate: Candidate, verdict: Verdict, rules: TextRules) -> Verdict:
    if verdict.reason:
        return verdict
    if verdict.accuracy == 1.0:
        reason = find_fault_of_style(candidate, rules)
    else:
        reason = "cannot judge" if verdict.accuracy is None else "wrong answer"
    return Verdict(reason, verdict.accuracy, verdict.judge)
