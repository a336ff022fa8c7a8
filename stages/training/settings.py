"""Settings of the trainers. Defaults are the paper's (R1 v2 §3.2 and appendix B.4) where it gives one."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.contract import StepConfig


class PretrainingConfig(StepConfig):
    """The tiny base model: shape, and one pass of next-token prediction over the corpus."""

    vocabulary: int = Field(default=1792, ge=300)
    """Tokens of the byte-level BPE tokenizer, special ones included."""
    hidden_size: int = 128
    """Width of the residual stream."""
    layers: int = 4
    """Decoder layers."""
    heads: int = 4
    """Query heads."""
    key_value_heads: int = 2
    """Heads of keys and values; fewer make decoding faster and copying from the text harder to learn."""
    rope_theta: float = Field(default=1000.0, gt=0)
    """Base of the rotary position embedding; 10,000 leaves half of 32 dimensions without use in short texts."""
    initializer_range: float = Field(default=0.08, gt=0)
    """Standard deviation of the initial weights; the usual 0.02 is made for wide models and starts too quietly."""
    intermediate_size: int = 384
    """Width of the gated MLP."""
    attention_dropout: float = 0.0
    """Dropout of the attention weights in training."""
    context: int = 512
    """Longest sequence, in tokens."""
    block: int = 128
    """Tokens of one pretraining sequence; documents are packed."""
    batch_size: int = 16
    """Sequences of one optimiser step."""
    matrix_learning_rate: float = Field(default=0.02, gt=0)
    """Peak for the weight matrices, which Muon trains; a cosine schedule with 2 % warm-up."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak for embeddings, biases and norms, which AdamW trains; the same schedule."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Of all parameters."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the corpus."""


class SupervisedConfig(StepConfig):
    """Supervised fine-tuning on prompt and completion; only the completion is trained on."""

    epochs: float = Field(default=2.0, gt=0)
    """Passes over the rows (paper: 2-3)."""
    batch_size: int = Field(default=128, ge=1)
    """Rows of one optimiser step over all devices (paper: 128)."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak learning rate (paper: 5e-5)."""
    final_learning_rate: float = Field(default=5e-6, ge=0)
    """Where the cosine schedule ends (paper: 5e-6)."""
    matrix_learning_rate: float = Field(default=0.0, ge=0)
    """Peak for the weight matrices if Muon trains them, on the same schedule; 0 = AdamW trains all, as in the paper.
    Muon needs whole matrices: not with weights in shards."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimiser steps of linear warm-up (not in the paper)."""
    max_length: int = Field(default=32768, ge=2)
    """Longest prompt + completion, in tokens (paper: 32,768); a longer row stops the step."""


class RewardModelConfig(StepConfig):
    """A reward model: the SFT checkpoint with a scalar head (R1 v2 §2.3 and appendix B.2)."""

    epochs: float = Field(default=1.0, gt=0)
    """Passes over the rows (paper: 1)."""
    batch_size: int = Field(default=256, ge=1)
    """Rows of one optimiser step (paper: 256)."""
    learning_rate: float = Field(default=6e-6, gt=0)
    """Peak learning rate, linear decay (paper: 6e-6)."""
    matrix_learning_rate: float = Field(default=0.0, ge=0)
    """Peak for the weight matrices if Muon trains them, on the same schedule; 0 = AdamW trains all, as in the paper.
    Muon needs whole matrices: not with weights in shards."""
    max_length: int = Field(default=8192, ge=2)
    """Longest prompt + response, in tokens (paper: 8,192)."""
    held_out: float = Field(default=0.1, gt=0, lt=1)
    """Share of the prompts kept out of training to measure agreement."""


class RewardRefresh(BaseModel):
    """The helpful reward model trained further on the policy's own answers (DeepSeekMath, algorithm 1)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int = Field(default=400, ge=1)
    """Optimiser steps of the policy from one refresh to the next."""
    prompts: int = Field(default=2000, ge=1)
    """Helpful train prompts that the policy answers for one, each `num_generations` times."""
    replay_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of its pairs that are those the reward model was first trained on (DeepSeekMath: 10 %)."""
    training: RewardModelConfig = RewardModelConfig()
    """How it is trained on them; the learning rate is constant, and epochs are whole."""


class ReinforcementConfig(StepConfig):
    """GRPO (R1 v2 §2.1, §3.2.1)."""

    steps: int = Field(default=1000, ge=1)
    """Optimiser steps."""
    prompts_per_step: int = Field(default=32, ge=1)
    """Questions of one optimiser step over all devices (paper: 32)."""
    num_generations: int = Field(default=16, ge=2)
    """Completions per question, the group (paper: 16). A group of one has no advantage."""
    minibatches: int = Field(default=16, ge=1)
    """Optimiser steps fed from one rollout (paper: 16, so 8,192 completions a rollout)."""
    learning_rate: float = Field(default=3e-6, gt=0)
    """Constant after warm-up (paper: 3e-6)."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimiser steps of linear warm-up (not in the paper)."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient clipping (not in the paper)."""
    beta: float = Field(default=0.001, ge=0)
    """KL coefficient (paper: 0.001)."""
    epsilon: float = Field(default=10.0, gt=0)
    """Clip range of the ratio (paper: 10)."""
    ratio: Literal["token", "output"] = "token"
    """What the ratio and the KL estimator are of: each token (DeepSeekMath), or the whole output as R1 prints it."""
    vllm: bool = False
    """Roll out with vLLM in the trainer's process; needs a GPU."""
    reference_refresh: int = Field(default=400, ge=0)
    """Reference model <- policy every so many steps (paper: 400); 0 = never."""
    domain_shares: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default={"math": 26.0, "code": 17.0, "stem": 22.0, "logic": 15.0}
    )
    """Rule-rewarded prompts by domain, in proportion (R1 v2 Table 4, in thousands); empty = each prompt as often as
    any other."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of the rollouts (paper: 1.0; 0.7 in stage 4)."""
    max_completion_length: int = Field(default=32768, ge=1)
    """Longest completion, in tokens (paper: 32,768)."""
    save_steps: int = Field(default=400, ge=1)
    """Scratch checkpoint every so many steps; a multiple of `minibatches`."""
    reward_weights: dict[str, float] = Field(
        default_factory=lambda: {"accuracy": 1.0, "think_format": 1.0, "language_consistency": 1.0}
    )
    """Weight of each reward, by file name in `stages/rewards` or dotted path `package.module:function`
    (paper: a plain sum, eq. 4 and 7-10)."""

    @model_validator(mode="after")
    def check_save_steps(self) -> "ReinforcementConfig":
        """TRL would silently resume inside a rollout."""
        if self.save_steps % self.minibatches:
            expected = f"expected a multiple of minibatches={self.minibatches}"
            raise ValueError(f"save_steps={self.save_steps} would cut a rollout; {expected}")
        return self
