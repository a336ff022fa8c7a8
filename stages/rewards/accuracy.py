"""Rule-based accuracy: 1.0 if the summary is right by its domain's rule, 0.0 if not.

DeepSeek-R1 (Nature 645, 2025), "Reward design": rewards for maths, code and logic come from
rules, never from a neural model. Rows that a reward model judges get None.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.domains import verify_all
from stages.rows import Prompt, completion_text, split_completion


def reward(completions: Sequence[Any], **columns: Sequence[Any]) -> list[float | None]:
    """Score of each completion; None where the domain cannot judge it or the row is not the rule's.

    Equal summaries of one prompt are judged once.
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
    return [None if key is None else verdicts.get(key, 0.0) for key in keys]


def read_prompt(columns: Mapping[str, Sequence[Any]], number: int) -> Prompt:
    """The prompt of one row of a batch; TRL hands its `prompt` column over as `prompts`."""
    row = {name: values[number] for name, values in columns.items() if name in Prompt.__dataclass_fields__}
    return Prompt.from_row({**row, "prompt": columns["prompts"][number]})
