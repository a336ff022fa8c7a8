"""Setup: the base model, one's own checkpoint or a tiny one pretrained on the generated world."""

from pathlib import Path

from pydantic import Field

from stages.contract import ConfigError, Metrics, Step, StepContext
from stages.domains import domain_rng, load_domain
from stages.domains.world import list_words, write_drill, write_opening
from stages.training.settings import PretrainingConfig


class BaseModelConfig(PretrainingConfig):
    path: str = ""
    """Folder of a checkpoint with safetensors weights to take instead of pretraining a tiny one."""
    corpus: dict[str, float] = Field(default_factory=dict)
    """Domains whose documents make the corpus, and their proportions. Apart from the profile's `domains`, so
    that another number of prompts leaves the base model as it is."""
    documents: int = Field(default=60_000, ge=1)
    """Documents of the pretraining corpus."""
    opening_share: float = Field(default=0.22, ge=0, lt=0.5)
    """Share of the documents that come first and hold lists and pairs alone. Attention heads that look up what
    followed a word before form there in about 700 steps, and rarely among other documents."""
    drill_share: float = Field(default=0.18, ge=0, lt=0.5)
    """Share of the documents that are drills among the others, which teach to calculate and to copy."""


def make_base_model(config: BaseModelConfig, context: StepContext) -> Metrics:
    from stages.training import pretraining

    if config.path:
        return pretraining.import_checkpoint(Path(config.path), context.output_dir)
    return pretraining.pretrain(config, write_corpus(config), context)


def write_corpus(config: BaseModelConfig) -> list[str]:
    """The opening, then all other documents shuffled; domains in the proportions of `corpus`."""
    total = sum(config.corpus.values())
    if total <= 0:
        raise ConfigError(
            "base_model.corpus is empty, so the tiny base model has nothing to read; expected domains "
            "with their proportions, as {math: 0.4}, or a checkpoint folder in base_model.path"
        )
    opening, drilled = (round(config.documents * share) for share in (config.opening_share, config.drill_share))
    read = config.documents - opening - drilled
    documents = list[str]()
    for name, weight in config.corpus.items():
        rng = domain_rng(config.seed, name, "corpus")
        count = round(read * weight / total)
        prompts = load_domain(name).generate("train", max(1, count // 4), rng)
        documents += [load_domain(name).document(prompts[n % len(prompts)], rng) for n in range(count)]
    words, drills = list_words(documents), domain_rng(config.seed, "corpus", "drills")
    documents += [write_drill(words, drills) for _ in range(drilled)]
    domain_rng(config.seed, "corpus", "order").shuffle(documents)
    return [write_opening(words, drills) for _ in range(opening)] + documents


STEPS = (Step("base_model", "setup", "policy", {}, BaseModelConfig, make_base_model, revision=3),)
