"""What the settings of the demo's reasoning RL are worth, over three seeds on dev problems; writes docs/tuning.md.

python -m benchmarks.tuning
"""

from pathlib import Path

from benchmarks.arms import Arm, Trained, show, train

DEV = ("evaluation.split=dev",)
HALF = ("steps=100",)
VARIATIONS = {
    "as in the demo": HALF,
    "learning rate 1.5e-4": (*HALF, "learning_rate=1.5e-4"),
    "learning rate 6e-4": (*HALF, "learning_rate=6.0e-4"),
    "warm-up of 10 steps": (*HALF, "warmup_steps=10"),
    "16 prompts a step, half of the steps": ("prompts_per_step=16", "steps=50"),
    "two updates a rollout": (*HALF, "minibatches=2"),
    "beta 0.01": (*HALF, "beta=0.01"),
}
PAGE = """# Settings of the demo's reasoning RL

Each row changes one thing in `configs/demo.yaml`, at half of the demo's steps. Dev problems, three seeds from the same
cold start, 95 % intervals over problems after averaging the samples of all seeds, smallest and largest seed in square
brackets. `python -m benchmarks.tuning` makes this page.

| | pass@1 at T = 1, % | pass@1 at T = 0.6, % | language consistency at T = 1, % |
|---|---|---|---|
{rows}
"""


def main() -> None:
    rows = [tell(name, train(make_arm(name, changes))) for name, changes in VARIATIONS.items()]
    Path("docs/tuning.md").write_text(PAGE.format(rows="\n".join(rows)), encoding="utf-8")


def make_arm(name: str, changes: tuple[str, ...]) -> Arm:
    return Arm(name, "reasoning_rl", (*DEV, *(f"reasoning_rl.{change}" for change in changes)))


def tell(name: str, trained: Trained) -> str:
    cells = [
        f"{show(trained.measure('correct', temperature=temperature))} {spread(trained, temperature)}"
        for temperature in (1.0, 0.6)
    ]
    return f"| {name} | {' | '.join(cells)} | {show(trained.measure('language_consistency'))} |"


def spread(trained: Trained, temperature: float) -> str:
    """The worst and the best seed."""
    single = [
        Trained([], [evaluation]).measure("correct", temperature=temperature).mean for evaluation in trained.evaluations
    ]
    return f"[{100 * min(single):.1f} {100 * max(single):.1f}]"


if __name__ == "__main__":
    main()
