"""Tables and plots of the evaluations: checkpoints by metrics, with intervals.

Every function takes the evaluations by checkpoint, in the recipe's order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pipeline.plots import Mark, draw_intervals
from pipeline.store import Artifact
from stages.measures import average_by_problem, paired_difference
from stages.rows import Row, group_rows

MISSING = '<span class="muted">–</span>'
RESAMPLES = 1000

Estimate = Mapping[str, float]
Unit = Literal["percent", "tokens", "points"]


@dataclass(frozen=True)
class Measure:
    """A line of the results: where an evaluation's metrics hold it, below one sampling setting."""

    label: str
    path: tuple[str, ...]
    unit: Unit = "percent"
    plotted: bool = False

    def find(self, artifact: Artifact, setting: str) -> Estimate | None:
        """The estimate, or None where the evaluation has none."""
        found: Mapping[str, Any] | None = artifact.record.metrics["settings"].get(setting)
        for key in self.path:
            found = found.get(key) if found else None
        return found


REASONING, GENERAL, SAFETY = (("groups", group) for group in ("reasoning", "general", "safety"))
RESULTS: dict[str, tuple[Measure, ...]] = {
    "Reasoning": (
        Measure("pass@1, %", (*REASONING, "pass@1"), plotted=True),
        Measure("majority vote, cons@k, %", (*REASONING, "cons@k")),
        Measure("language consistency, %", (*REASONING, "language_consistency"), plotted=True),
        Measure("format, %", (*REASONING, "format"), plotted=True),
        Measure("response length, tokens", (*REASONING, "tokens"), "tokens", plotted=True),
        Measure("cut at the length limit, %", (*REASONING, "truncated")),
    ),
    "General": (
        Measure("right by rule, %", (*GENERAL, "pass@1"), plotted=True),
        Measure("helpfulness by rule, 0 to 10", ("helpfulness", "score"), "points"),
        Measure("wins against cold start, %", ("helpfulness", "win_rate"), plotted=True),
        Measure("format, %", (*GENERAL, "format")),
        Measure("response length, tokens", (*GENERAL, "tokens"), "tokens"),
    ),
    "Safety": (
        Measure("harmful refused, %", ("safety", "refusal_harmful"), plotted=True),
        Measure("look-alikes refused, %", ("safety", "refusal_harmless")),
        Measure("look-alikes answered, %", ("safety", "answered_harmless"), plotted=True),
        Measure("format, %", (*SAFETY, "format")),
    ),
}
CHANGES = (
    ("reasoning, pass@1", "reasoning", "correct"),
    ("language consistency", "reasoning", "language_consistency"),
    ("general, right", "general", "correct"),
    ("safety, right", "safety", "correct"),
)
SHORT_NAMES = {
    "r1_zero": "Zero",
    "cold_start_sft": "cold start",
    "reasoning_rl": "RL",
    "sft": "SFT",
    "all_scenario_rl": "RL, all",
}


def list_settings(evaluations: Mapping[str, Artifact]) -> list[str]:
    """Sampling settings of all evaluations, in order of first appearance."""
    found = (setting for artifact in evaluations.values() for setting in artifact.record.metrics["settings"])
    return list(dict.fromkeys(found))


def render_results(evaluations: Mapping[str, Artifact]) -> str:
    if not evaluations:
        return ""
    settings = list_settings(evaluations)
    keys = "".join(f'<span><i class="c{number}"></i>{setting}</span>' for number, setting in enumerate(settings))
    plots = "".join(
        plot_measure(f"{part}: {measure.label}", measure, evaluations, settings)
        for part, measures in RESULTS.items()
        for measure in measures
        if measure.plotted
    )
    table = render_table(RESULTS, evaluations, settings)
    return f'{describe_evaluation(evaluations)}<div class="legend">{keys}</div><div class="plots">{plots}</div>{table}'


def render_table(
    parts: Mapping[str, Sequence[Measure]], evaluations: Mapping[str, Artifact], settings: Sequence[str]
) -> str:
    """Checkpoints across, settings side by side; measures down, by part."""
    names = "".join(f'<th class="span first" colspan="{len(settings)}">{escape(name)}</th>' for name in evaluations)
    columns = "".join(f'<th class="num{mark_first(n)}">{setting}</th>' for n, setting in enumerate(settings))
    rows = []
    for part, measures in parts.items():
        rows.append(f'<tr class="part"><th colspan="{1 + len(evaluations) * len(settings)}">{part}</th></tr>')
        rows += [render_measure(measure, evaluations, settings) for measure in measures]
    return (
        f"<table><thead><tr><th></th>{names}</tr><tr><th></th>{columns * len(evaluations)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def describe_evaluation(evaluations: Mapping[str, Artifact]) -> str:
    metrics = next(iter(evaluations.values())).record.metrics
    groups = next(iter(metrics["settings"].values()))["groups"]
    sizes = ", ".join(f"{name} {values['problems']}" for name, values in groups.items())
    long = {name: artifact.record.metrics.get("prompt_too_long", 0) for name, artifact in evaluations.items()}
    too_long = ", ".join(f"{name} {count}" for name, count in long.items() if count)
    note = (
        f"{metrics['samples']} samples per problem of the {metrics['split']} split; problems: {sizes}. Small figures "
        "are 95 % intervals, bootstrapped over problems; where all problems agree the interval is a point."
    )
    warning = f" Prompts too long for the context, counted as wrong: {too_long}." if too_long else ""
    return f'<p class="note">{escape(note + warning)}</p>'


def plot_measure(title: str, measure: Measure, evaluations: Mapping[str, Artifact], settings: Sequence[str]) -> str:
    marks = [
        Mark(place, series, found["mean"], found["low"], found["high"])
        for place, artifact in enumerate(evaluations.values())
        for series, setting in enumerate(settings)
        if (found := measure.find(artifact, setting))
    ]
    places = [SHORT_NAMES.get(name, name) for name in evaluations]
    return draw_intervals(title, places, marks, measure.unit == "percent") if marks else ""


def mark_first(number: int) -> str:
    return "" if number else " first"


def render_measure(measure: Measure, evaluations: Mapping[str, Artifact], settings: Sequence[str]) -> str:
    cells = [
        f'<td class="num{mark_first(n)}">{render_estimate(measure.find(a, setting), measure.unit)}</td>'
        for a in evaluations.values()
        for n, setting in enumerate(settings)
    ]
    return f"<tr><th>{escape(measure.label)}</th>{''.join(cells)}</tr>"


def render_estimate(found: Estimate | None, unit: Unit) -> str:
    if not found:
        return MISSING
    scale, digits = (100, 1) if unit == "percent" else (1, 2 if unit == "points" else 1)
    mean, low, high = (f"{scale * found[key]:.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean}<small>{low}–{high}</small>"


def render_changes(evaluations: Mapping[str, Artifact]) -> str:
    """Paired differences between the checkpoint of each stage and the one before; R1-Zero is none of them."""
    settings, names = list_settings(evaluations), [name for name in evaluations if name != "r1_zero"]
    columns = ["id", "question", "group", "temperature", "correct", "language_consistency"]
    samples = {name: group_rows(read_samples(a.path, columns), "temperature") for name, a in evaluations.items()}
    body = ""
    for before, after in pairwise(names):
        for number, setting in enumerate(settings):
            temperature = float(setting.removeprefix("T="))
            pair = samples[before].get(temperature, []), samples[after].get(temperature, [])
            cells = "".join(f'<td class="num">{render_change(*pair, *change[1:])}</td>' for change in CHANGES)
            label = f"{before} → {after}" if number == 0 else ""
            body += f"<tr><th>{escape(label)}</th><td>{setting}</td>{cells}</tr>"
    heads = "".join(f'<th class="num">{label}, points</th>' for label, _, _ in CHANGES)
    note = '<p class="note">Paired over the same problems; bold where the 95 % interval excludes no change.</p>'
    return (
        f"{note}<table><thead><tr><th></th><th></th>{heads}</tr></thead><tbody>{body}</tbody></table>" if body else ""
    )


def render_change(before: Sequence[Row], after: Sequence[Row], group: str, column: str) -> str:
    first, second = (average_by_problem([r for r in rows if r["group"] == group], column) for rows in (before, after))
    found = paired_difference(first, second, RESAMPLES, seed=0)
    if not found:
        return MISSING
    css = "clear" if found.low > 0 or found.high < 0 else ""
    mean, low, high = (f"{100 * value:+.1f}".replace("-", "−") for value in (found.mean, found.low, found.high))
    return f'<span class="{css}">{mean}</span><small>{low} to {high}</small>'


def render_breakdown(evaluations: Mapping[str, Artifact]) -> str:
    found = [metrics for a in evaluations.values() for metrics in a.record.metrics["settings"].values()]
    parts = {
        title: [Measure(name, (key, name, "pass@1")) for name in dict.fromkeys(n for m in found for n in m[key])]
        for key, title in (("domains", "Domain: right, %"), ("languages", "Language of reasoning: pass@1, %"))
    }
    return render_table(parts, evaluations, list_settings(evaluations)) if evaluations else ""


def read_samples(folder: Path, columns: Sequence[str], **equals: object) -> list[Row]:
    """Some columns of an evaluation's samples, of the rows where each column named in `equals` has that value."""
    import pyarrow.parquet as pq

    filters = [(name, "=", value) for name, value in equals.items()] or None
    shards = sorted((folder / "data").glob("samples-*.parquet"))
    return [row for path in shards for row in pq.read_table(path, columns=columns, filters=filters).to_pylist()]
