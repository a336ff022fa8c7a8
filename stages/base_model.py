"""Setup: the base model, one's own checkpoint or a tiny one pretrained on the generated world."""

from pathlib import Path

from pydantic import Field

from stages.contract import ConfigError, Metrics, Step, StepContext
from stages.domains import domain_rng, load_domain
from stages.domains.world import write_drill
from stages.prompts import DomainConfig, enabled_domains
from stages.training.settings import PretrainingConfig


class BaseModelConfig(PretrainingConfig):
    path: str = ""
    """Folder of a checkpoint with safetensors weights to take instead of pretraining a tiny one."""
    domains: dict[str, DomainConfig] = Field(default_factory=dict)
    """Domains whose documents make the corpus. Taken from the profile's `domains` unless set."""
    documents: int = Field(default=60_000, ge=1)
    """Documents of the pretraining corpus."""
    drill_share: float = Field(default=0.15, ge=0, lt=1)
    """Share of the documents that are drills: sums, lists and pairs, which teach to calculate and to copy."""


def make_base_model(config: BaseModelConfig, context: StepContext) -> Metrics:
    from stages.training import pretraining

    if config.path:
        return pretraining.import_checkpoint(Path(config.path), context.output_dir)
    return pretraining.pretrain(config, write_corpus(config), context)


def write_corpus(config: BaseModelConfig) -> list[str]:
    """The documents, shuffled; domains in proportion to `corpus_weight`."""
    domains = {n: d for n, d in enabled_domains(config.domains).items() if d.corpus_weight > 0}
    if not domains:
        raise ConfigError("domains: no domain has a corpus_weight above 0, so the tiny base model has nothing to read")
    total = sum(domain.corpus_weight for domain in domains.values())
    drills = domain_rng(config.seed, "corpus", "drills")
    documents = [write_drill(drills) for _ in range(round(config.documents * config.drill_share))]
    read = config.documents - len(documents)
    for name, domain in domains.items():
        rng = domain_rng(config.seed, name, "corpus")
        count = round(read * domain.corpus_weight / total)
        prompts = load_domain(name).generate("train", max(1, count // 4), rng)
        documents += [load_domain(name).document(prompts[n % len(prompts)], rng) for n in range(count)]
    domain_rng(config.seed, "corpus", "order").shuffle(documents)
    return documents


STEPS = (Step("base_model", "setup", "policy", {}, BaseModelConfig, make_base_model),)
