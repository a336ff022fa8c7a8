"""Stage 2, reasoning RL: GRPO on verifiable prompts with accuracy, format and language consistency.

Paper: R1 v2 §3.2.1 (hyper-parameters), eq. 4 (accuracy + format) and eq. 7 (language consistency).
"""

from pydantic import field_validator

from stages.contract import Metrics, Step, StepContext
from stages.mixture import count_visits, draw_reasoning
from stages.rewards import check_rewards, load_reward
from stages.rows import read_prompts
from stages.training.settings import ReinforcementConfig


class ReasoningRLConfig(ReinforcementConfig):
    permute_rewards: bool = False
    """Control experiment: rewards are shuffled within the batch, so nothing can be learned from them."""

    @field_validator("reward_weights")
    @classmethod
    def check_rewards(cls, weights: dict[str, float]) -> dict[str, float]:
        return check_rewards(weights)


def train_reasoning_rl(config: ReasoningRLConfig, context: StepContext) -> Metrics:
    from stages.training.grpo import permute_rewards, train_grpo

    prompts = draw_reasoning(read_prompts(context.inputs["prompts"], "train"), count_visits(config), config)
    rewards = {name: load_reward(name) for name in config.reward_weights}
    if config.permute_rewards:
        rewards = {name: permute_rewards(reward, config.seed) for name, reward in rewards.items()}
    return train_grpo(context.inputs["policy"], prompts, rewards, config, context)


STEPS = (
    Step(
        "reasoning_rl",
        "reasoning_rl",
        "policy",
        {"policy": "cold_start_sft", "prompts": "prompts"},
        ReasoningRLConfig,
        train_reasoning_rl,
        extendable="steps",
    ),
)
