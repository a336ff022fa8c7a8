"""Rule-based accuracy: 1.0 if the summary is right by its domain's rule, 0.0 if not.

DeepSeek-R1 (Nature 645, 2025), "Reward design": rewards for maths, code and logic come from
rules, never from a neural model. Rows that a reward model judges get None.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stages.contract import StepError
from stages.domains import verify_all
from stages.math_answers import has_hidden
from stages.rows import Prompt, completion_text, split_completion

MOST_UNJUDGED = 0.2
FEWEST_JUDGED = 32
"""Rows below which a share says nothing."""
LogMetric = Callable[[str, float], None]


def reward(completions: Sequence[Any], log_metric: LogMetric | None = None, **columns: Any) -> list[float | None]:
    """Score of each completion; None where the domain cannot judge it or the row is not the rule's.

    Equal summaries of one prompt are judged once. Raises StepError if more than a fifth of the rule's rows cannot
    be judged: training would go on with noise.
    """
    summaries = [split_completion(completion_text(completion))[1] for completion in completions]
    keys = [
        (id, summary) if source == "rule" else None
        for id, summary, source in zip(columns["id"], summaries, columns["reward"], strict=True)
    ]
    # Any row of a key serves: all have the same prompt and summary.
    rows = {key: number for number, key in enumerate(keys) if key and key[1]}
    domains: dict[str, list[tuple[str, str]]] = {}
    for key, number in rows.items():
        domains.setdefault(columns["domain"][number], []).append(key)
    verdicts: dict[tuple[str, str], float | None] = {}
    for domain, asked in domains.items():
        prompts = [read_prompt(columns, rows[key]) for key in asked]
        verdicts |= zip(asked, verify_all(domain, prompts, [summary for _, summary in asked]), strict=True)
    scores = [None if key is None else verdicts.get(key, 0.0) for key in keys]
    judged = [score for key, score in zip(keys, scores, strict=True) if key]
    if log_metric and judged:
        log_metric("accuracy/cannot_judge", judged.count(None) / len(judged))
        log_metric("accuracy/judged_before", 1 - len(rows) / len(judged))
        log_metric("accuracy/hidden_characters", sum(has_hidden(key[1]) for key in keys if key) / len(judged))
    check_verdicts(judged)
    return scores


def check_verdicts(scores: Sequence[float | None]) -> None:
    """Raises StepError if too many rows could not be judged."""
    unjudged = scores.count(None) / max(1, len(scores))
    if unjudged > MOST_UNJUDGED and len(scores) >= FEWEST_JUDGED:
        raise StepError(
            f"{unjudged:.0%} of {len(scores)} answers could not be judged, expected at most {MOST_UNJUDGED:.0%}: the "
            "verifier or the sandbox fails, or the machine is too busy for their time limits"
        )


def read_prompt(columns: Mapping[str, Sequence[Any]], number: int) -> Prompt:
    """The prompt of one row of a batch; TRL hands its `prompt` column over as `prompts`."""
    row = {name: values[number] for name, values in columns.items() if name in Prompt.__dataclass_fields__}
    return Prompt.from_row({**row, "prompt": columns["prompts"][number]})
