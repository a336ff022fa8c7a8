"""An engine whose answers a test writes down."""

from collections.abc import Callable, Sequence

from stages.contract import Progress, no_progress
from stages.engines import Completion, Sampling

Answer = Callable[[str, int], str]
"""(question or text, number of the sample) -> completion."""


class ScriptedEngine:
    """Answers as `answer` says and remembers what it was asked."""

    def __init__(self, answer: Answer, unfinished: Sequence[int] = ()) -> None:
        self.answer, self.unfinished = answer, unfinished
        self.asked: list[str] = []

    def sample(
        self, questions: Sequence[str], sampling: Sampling, seed: int, progress: Progress = no_progress
    ) -> list[list[Completion]]:
        self.asked += questions
        return [[self.complete(question, number) for number in range(sampling.n)] for question in questions]

    extend = sample

    def complete(self, question: str, number: int) -> Completion:
        text = self.answer(question, number)
        return Completion(text, len(text), "length" if number in self.unfinished else "stop")
