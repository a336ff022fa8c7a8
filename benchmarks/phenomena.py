"""The paper's phenomena in the tiny world, over three seeds; writes docs/phenomena.md and its plots.

    python -m benchmarks.phenomena

Figures are of the test split at T = 1, intervals are 95 %: over problems, after averaging the samples of
all seeds; or over seeds (Student's t) for what is read from training logs.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from benchmarks.arms import SEEDS, Arm, Trained, show, train
from pipeline import report
from pipeline.plots import Mark, Points, draw_curves, draw_intervals
from pipeline.store import Artifact

DOCS = Path("docs")
T_OF_THREE = 4.303
"""Student's t for 95 % with two degrees of freedom."""
EDGE = 0.1
"""Share of the training steps that counts as its beginning, and as its end."""
LINE = "\n"
LONG = (
    "all_scenario_rl.steps=800",
    "all_scenario_rl.beta=0.0",
    "all_scenario_rl.learning_rate=2.0e-4",
    "all_scenario_rl.preference_share=1.0",
)
"""Preference rewards far longer and harder than the demo trains on them."""


ZERO = Arm("R1-Zero", "r1_zero")
COLD = Arm("cold start", "cold_start_sft")
WITH = Arm("with language reward", "reasoning_rl", seeded=("cold_start_sft",))
WITHOUT = Arm(
    "without language reward",
    "reasoning_rl",
    ("reasoning_rl.reward_weights.language_consistency=0.0",),
    ("cold_start_sft",),
)
START = Arm("stage-3 SFT", "sft", seeds=SEEDS[:1])
HACKED = Arm("not watched", "all_scenario_rl", (*LONG, "all_scenario_rl.monitor_prompts=0"))
WATCHED = Arm("watched", "all_scenario_rl", LONG)


def main() -> None:
    zero, cold, with_reward, without, start, hacked, watched = map(
        train, (ZERO, COLD, WITH, WITHOUT, START, HACKED, WATCHED)
    )
    sections = [
        tell_zero(zero),
        tell_language(cold, with_reward, without),
        tell_dip(zero, cold, with_reward),
        tell_hacking(start, hacked, watched),
    ]
    (DOCS / "phenomena.md").write_text("\n\n".join([INTRODUCTION, *sections]) + "\n", encoding="utf-8")


INTRODUCTION = """# Phenomena

What the paper tells of its models, looked for in the tiny world: three seeds, test split, sampled at T = 1. Intervals
are 95 %. `python -m benchmarks.phenomena` makes everything on this page from the demo's checkpoints. A model of a
million parameters shows how the recipe works; its figures say nothing about models of useful size."""


def tell_zero(zero: Trained) -> str:
    accuracy = zero.follow("rewards/accuracy/mean")
    length = zero.follow("completions/mean_length")
    reflection = zero.follow("reflection/en", "reflection/zh")
    plots = [
        save_curves("zero_accuracy", "R1-Zero: right answers in training", name_seeds(accuracy)),
        save_curves("zero_length", "R1-Zero: completion length, tokens", name_seeds(length)),
        save_curves("zero_reflection", "R1-Zero: words of reflection in a completion", name_seeds(reflection)),
    ]
    rows = [
        tell_change("right answers, %", accuracy, 100),
        tell_change("completion length, tokens", length),
        tell_change("words of reflection in a completion", reflection),
    ]
    return f"""## R1-Zero: pure RL from the base model

Accuracy and format rewards alone, no demonstration (paper, §2.3: accuracy and length rise, and words of reflection with
them). First and last tenth of the training steps:

| | first tenth | last tenth | change | |
|---|---|---|---|---|
{LINE.join(rows)}

On test problems it is right in {show(zero.measure("correct"))} % of its answers.

{LINE.join(plots)}"""


def tell_language(cold: Trained, with_reward: Trained, without: Trained) -> str:
    language = "rewards/language_consistency/mean"
    ablation = {"without": without, "with": with_reward}
    arms = {"cold start": cold, **ablation}
    curves = {name: average_curves(trained.follow(language)) for name, trained in ablation.items()}
    rows = [
        f"| {name} | {show(trained.measure('language_consistency'))} | {show(trained.measure('correct'))} |"
        for name, trained in arms.items()
    ]
    plots = [
        save_curves("language_training", "Language consistency in training", curves),
        save_intervals("language_test", "Language consistency on test, %", arms, "language_consistency"),
        save_intervals("language_accuracy", "pass@1 on test, %", arms, "correct"),
    ]
    return f"""## Language mixing, with and without the language reward

The same stage-2 RL from the same checkpoints, the weight of the language-consistency reward being 1 or 0 (paper, §2.3
and appendix: without it chains of thought mix languages; the reward costs a little accuracy).

| stage 2 | language consistency, % | pass@1, % |
|---|---|---|
{LINE.join(rows)}

{LINE.join(plots)}"""


def tell_dip(zero: Trained, cold: Trained, with_reward: Trained) -> str:
    arms = {"R1-Zero": zero, "cold start": cold, "RL": with_reward}
    rows = [
        f"| {name} | {show(trained.measure('correct'))} | {show(trained.measure('language_consistency'))} | "
        f"{show(trained.measure('format'))} |"
        for name, trained in arms.items()
    ]
    return f"""## The dip after the cold start, and its recovery

In the paper (Table 3: R1-Zero, Dev1, Dev2) a small cold start makes the model readable and costs it accuracy beside
R1-Zero, and reasoning RL brings that back.

| | pass@1, % | language consistency, % | format, % |
|---|---|---|---|
{LINE.join(rows)}

{save_intervals("dip", "pass@1 on test, %", arms, "correct")}"""


def tell_hacking(start: Trained, hacked: Trained, watched: Trained) -> str:
    arms = {"SFT": start, "not watched": hacked, "watched": watched}
    rows = [
        f"| {name} | {show(trained.measure('helpfulness', 'general'), 1)} | {show(trained.measure('correct'))} |"
        for name, trained in arms.items()
    ]
    rewards = name_seeds(hacked.follow("rewards/helpful/mean"))
    return f"""## A hacked reward model, and the monitor that stops it

Preference rewards far longer and harder than the demo's, without a KL term (paper, §3.2.2: more steps of preference
rewards lead to reward hacking):
`{"`, `".join(LONG)}`.
The helpful model's reward is {tell_rise(hacked.follow("rewards/helpful/mean"))};
helpfulness by the world's own rule is what no policy is trained on:

| | helpfulness by rule, 0 to 10 | reasoning pass@1, % |
|---|---|---|
{LINE.join(rows)}

The monitor measures a score by rule on dev prompts at each checkpoint, beside the reward models':
{"; ".join(tell_stop(*pair) for pair in zip(SEEDS, watched.policies, strict=True))}.

{save_curves("hacking_reward", "Helpful reward in training, not watched", rewards)}
{save_intervals("hacking_score", "Helpfulness by rule on test", arms, "helpfulness", "general")}"""


def tell_rise(series: Sequence[Points]) -> str:
    firsts, lasts = (mean(edge_means(series, last)) for last in (False, True))
    return f"{firsts:.3f} in the first tenth of the steps and {lasts:.3f} in the last"


def tell_stop(seed: int, policy: Artifact) -> str:
    seen = policy.record.metrics["monitor"]
    if "hacked_at" not in seen:
        return f"seed {seed} was not found hacked in {seen['readings'][-1]['step']} steps"
    return f"seed {seed} was found hacked at step {seen['hacked_at']} and rolled back to {seen['rolled_back_to']}"


def tell_change(name: str, series: Sequence[Points], scale: float = 1) -> str:
    """A row of a table: means over seeds at both ends of training, and the change with its interval."""
    firsts, lasts = ([scale * value for value in edge_means(series, last)] for last in (False, True))
    changes = [last - first for first, last in zip(firsts, lasts, strict=True)]
    reach = T_OF_THREE * stdev(changes) / len(changes) ** 0.5
    change = mean(changes)
    verdict = "rises" if change > reach else "falls" if change < -reach else "no clear change"
    return f"| {name} | {mean(firsts):.2f} | {mean(lasts):.2f} | {change:+.2f} ± {reach:.2f} | {verdict} |"


def edge_means(series: Sequence[Points], last: bool) -> list[float]:
    """Mean of the first or the last tenth of each curve."""
    counts = [max(1, round(EDGE * len(points))) for points in series]
    edges = (points[-n:] if last else points[:n] for n, points in zip(counts, series, strict=True))
    return [mean(value for _, value in edge) for edge in edges]


def average_curves(series: Sequence[Points]) -> Points:
    """Mean over the curves at each step that all have."""
    tables = [dict(points) for points in series]
    steps = [step for step in tables[0] if all(step in table for table in tables)]
    return [(step, mean(table[step] for table in tables)) for step in steps]


def name_seeds(series: Sequence[Points]) -> dict[str, Points]:
    return {f"seed {seed}": points for seed, points in zip(SEEDS, series, strict=True)}


def save_curves(name: str, title: str, series: Mapping[str, Points]) -> str:
    return save_plot(name, title, draw_curves(title, series, width=420, height=240))


def save_intervals(name: str, title: str, arms: Mapping[str, Trained], column: str, group: str = "reasoning") -> str:
    found = [trained.measure(column, group) for trained in arms.values()]
    marks = [Mark(place, 0, f.mean, f.low, f.high) for place, f in enumerate(found)]
    return save_plot(name, title, draw_intervals(title, list(arms), marks, column != "helpfulness", 420, 240))


def save_plot(name: str, title: str, svg: str) -> str:
    """Writes a plot that stands by itself; the line of Markdown that shows it."""
    opened, body = svg.split(">", 1)
    folder = DOCS / "phenomena"
    folder.mkdir(parents=True, exist_ok=True)
    text = f'{opened} xmlns="http://www.w3.org/2000/svg"><style>{read_style()}</style>{body}\n'
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return f"![{title}](phenomena/{name}.svg)"


def read_style() -> str:
    """The report's rules for plots, without variables, which few programs but browsers know."""
    sheet = Path(report.__file__).with_name("report.css").read_text(encoding="utf-8")
    colors = dict(re.findall(r"(--[\w-]+): (#\w+);", sheet))
    rules = LINE.join(line for line in sheet.splitlines() if line.startswith(("svg", ".c0", ".c4", ".fill")))
    rules = f"svg text {{ font-family: sans-serif; }}{LINE}{rules}"
    return re.sub(r"var\((--[\w-]+)\)", lambda found: colors[found[1]], rules)


if __name__ == "__main__":
    main()
