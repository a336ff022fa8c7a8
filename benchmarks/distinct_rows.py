"""Whether the generated domains of a profile can fill its quotas with rows that are all different.

    python -m benchmarks.distinct_rows CONFIG [--domain NAME]...

For a reasoning domain different questions are counted, as each gives at least one answer; the share of them that must
be solved to fill the quota is its figure. For the others different pairs of question and demonstration are counted.
Questions that share ten words with a dev or test question are left out, as the `prompts` step leaves them out.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measurement import print_figure
from pipeline.config import load_profile
from pipeline.recipe import R1
from stages.decontamination import HeldOut
from stages.domains import domain_rng, group_of, load_domain
from stages.ngrams import hash_text, hash_words
from stages.prompts import DomainConfig, PromptsConfig, enabled_domains
from stages.rejection_sampling import SFTDataConfig, scale_targets


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distinct_rows", description="Rows that are different.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--domain", action="append")
    given = parser.parse_args(arguments)
    configs = load_profile(given.config, (), R1).configs
    prompts, sft_data = configs["prompts"], configs["sft_data"]
    assert isinstance(prompts, PromptsConfig) and isinstance(sft_data, SFTDataConfig)
    domains = enabled_domains(prompts.domains)
    quotas = scale_targets(sft_data, set(domains))
    held_out = HeldOut(list_held_out(domains, prompts.seed), prompts.decontamination_ngram)
    for name in given.domain or quotas:
        different = count_different(name, domains[name].train, prompts.seed, held_out)
        sides = {"different rows": [different], "quota": [quotas[name]]}
        print_figure(f"{name}: quota to different rows", quotas[name] / different, "share", sides, bar=1.0)


def list_held_out(domains: Mapping[str, DomainConfig], seed: int) -> list[tuple[str, str]]:
    return [
        (name, prompt.question)
        for name, domain in domains.items()
        for split, count in (("dev", domain.dev), ("test", domain.test))
        for prompt in load_domain(name).generate(split, count, domain_rng(seed, name, split))
    ]


def count_different(name: str, count: int, seed: int, held_out: HeldOut) -> int:
    is_reasoning = group_of(name) == "reasoning"
    return len(
        {
            hash_text(prompt.question if is_reasoning else f"{prompt.question}\0{prompt.demonstration}")
            for prompt in load_domain(name).generate("train", count, domain_rng(seed, name, "train"))
            if not held_out.find(hash_words(prompt.question))
        }
    )


if __name__ == "__main__":
    main(sys.argv[1:])
