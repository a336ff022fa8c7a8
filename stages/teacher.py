"""Answers of a teacher to general questions that come without one.

Paper: R1 v2 §3.3.1: V3 is prompted to think before it answers, but for simple requests, as greetings, it is not. What
passes the filters of the text is taken: there is no answer to compare it with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from stages.contract import Progress
from stages.filters import Candidate, find_fault_before_judging, find_fault_of_style
from stages.judging import Verdict
from stages.rows import THINK_CLOSE, Prompt, join_completion, split_completion
from stages.sampling_rounds import Sampler, select_domains


@dataclass(frozen=True)
class TeacherSampler(Sampler):
    """Asks for thoughts where a prompt requires them, and rejects by the text alone."""

    instruction: str
    """`{question}` stands for the question."""

    def sample_round(
        self, prompts: Sequence[Prompt], n: int, done: int, number: int, progress: Progress
    ) -> list[Candidate]:
        own = {prompt.id: prompt for prompt in prompts}
        answers = super().sample_round([self._instruct(prompt) for prompt in prompts], n, done, number, progress)
        return [replace(c, prompt=own[c.prompt.id], text=form_answer(own[c.prompt.id], c.text)) for c in answers]

    def judge_round(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        return [Verdict(find_fault_before_judging(c) or find_fault_of_style(c, self.rules)) for c in candidates]

    def _instruct(self, prompt: Prompt) -> Prompt:
        if prompt.reasoning == "none":
            return prompt
        return replace(prompt, question=self.instruction.replace("{question}", prompt.question))


def form_answer(prompt: Prompt, text: str) -> str:
    """The answer as the policy is to write it: what a teacher thinks of its own accord is left out of `none`."""
    if prompt.reasoning == "required":
        return text.strip()
    return join_completion("", split_completion(text)[1] if THINK_CLOSE in text else text.strip())


def select_unanswered(prompts: pa.Table, domains: Sequence[str]) -> pa.Table:
    """Prompts of the domains that have no demonstration."""
    chosen = select_domains(prompts, domains)
    return chosen.filter(pc.equal(chosen["demonstration"], ""))
