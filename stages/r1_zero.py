"""R1-Zero: RL from the base model alone, with the paper's template and rewards of rule for answer and format.

Paper: R1 v2 §2.2 (Table 1: template; eq. 4: accuracy + format) and appendix B.4.1.
"""

import json

from pydantic import Field, field_validator

from stages.contract import Metrics, Step, StepContext
from stages.mixture import count_visits, draw_reasoning
from stages.rewards import check_rewards, load_reward
from stages.rows import read_prompts
from stages.training.settings import ReinforcementConfig

TEMPLATE = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
    "reasoning process here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"
)
"""R1, Table 1."""


class R1ZeroConfig(ReinforcementConfig):
    steps: int = Field(default=10_400, ge=1)
    """Optimiser steps (paper: 10,400)."""
    template: str = TEMPLATE
    """What the base model goes on from; `{prompt}` stands for the question (paper: Table 1)."""
    reward_weights: dict[str, float] = Field(default_factory=lambda: {"accuracy": 1.0, "think_format": 1.0})
    """Weight of each reward (paper: a plain sum, eq. 4)."""

    @field_validator("reward_weights")
    @classmethod
    def check_rewards(cls, weights: dict[str, float]) -> dict[str, float]:
        return check_rewards(weights)

    @field_validator("template")
    @classmethod
    def check_template(cls, template: str) -> str:
        if template.count("{prompt}") != 1:
            raise ValueError("expected {prompt} in it once, where the question stands")
        return template


def write_chat_template(template: str) -> str:
    """The template as Jinja, for the last message of a conversation."""
    before, after = (f"{{{{ {json.dumps(part)} }}}}" for part in template.split("{prompt}"))
    return f"{before}{{{{ messages[-1]['content'] }}}}{after}"


def train_r1_zero(config: R1ZeroConfig, context: StepContext) -> Metrics:
    from stages.training.grpo import train_grpo

    prompts = draw_reasoning(read_prompts(context.inputs["prompts"], "train"), count_visits(config), config)
    rewards = {name: load_reward(name) for name in config.reward_weights}
    template = write_chat_template(config.template)
    return train_grpo(context.inputs["policy"], prompts, rewards, config, context, template)


STEPS = (
    Step(
        "r1_zero",
        "r1_zero",
        "policy",
        {"policy": "base_model", "prompts": "prompts"},
        R1ZeroConfig,
        train_r1_zero,
        extendable="steps",
    ),
)
