"""The prompts step: generated rows, real files, quotas, what is counted."""

import json
from pathlib import Path

import pytest
import yaml

from stages.contract import ConfigError, DataError, Metrics, StepContext
from stages.decontamination import find_contaminated
from stages.prompts import SPLITS, DomainConfig, ProblemFile, PromptsConfig, make_prompts
from stages.rows import Prompt, read_prompts

ROOT = Path(__file__).resolve().parent.parent


def run(folder: Path, seed: int = 0, **domains: DomainConfig) -> Metrics:
    folder.mkdir(exist_ok=True)
    return make_prompts(PromptsConfig(domains=domains, seed=seed), StepContext({}, folder, folder))


def rows_of(folder: Path, domain: str) -> list[Prompt]:
    return [prompt for split in SPLITS for prompt in read_prompts(folder, split) if prompt.domain == domain]


def write_problems(path: Path, count: int, *bad: str) -> ProblemFile:
    """Problems in GSM8K's layout."""
    lines = [
        json.dumps(
            {"question": f"Real question {n} about {n} sheep?", "answer": f"{n}+1=<<{n}+1={n + 1}>>\n#### {n + 1}"}
        )
        for n in range(count)
    ]
    path.write_text("\n".join([*lines[:2], *bad, *lines[2:]]) + "\n")
    return ProblemFile(path=str(path), answer_format="gsm8k")


def test_size_of_a_domain_moves_no_row_of_another(tmp_path: Path) -> None:
    math = DomainConfig(train=30, dev=5, test=5)
    run(tmp_path / "a", math=math, stem=DomainConfig(train=5, dev=1, test=1))
    run(tmp_path / "b", math=math, stem=DomainConfig(train=50, dev=2, test=3), logic=DomainConfig(train=9))
    assert rows_of(tmp_path / "a", "math") == rows_of(tmp_path / "b", "math")
    run(tmp_path / "c", seed=1, math=math)
    assert rows_of(tmp_path / "a", "math") != rows_of(tmp_path / "c", "math")


def test_published_splits_of_the_demo_share_no_ngram(tmp_path: Path) -> None:
    sections = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())["domains"]
    domains = {name: DomainConfig(**section) for name, section in sections.items()}
    metrics = run(tmp_path, **domains)
    train, dev, test = ([prompt.question for prompt in read_prompts(tmp_path, split)] for split in SPLITS)
    assert not find_contaminated(train, [*dev, *test], 10)
    assert not find_contaminated(dev, test, 10)
    assert len(train) + metrics["contaminated"] == sum(domain.train for domain in domains.values())
    assert len(test) == sum(domain.test for domain in domains.values())


def test_operation_counts_are_in_the_metrics(tmp_path: Path) -> None:
    metrics = run(tmp_path, math=DomainConfig(train=200, dev=40, test=40))
    for split in SPLITS:
        counts = metrics["operations"][split]
        assert list(counts) == ["1", "2", "3", "4"]
        assert sum(counts.values()) == metrics["rows"][split]["math"]


def test_a_quota_above_the_different_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"domains\.greetings\.dev is 1000, .*expected at most \d+"):
        run(tmp_path, greetings=DomainConfig(train=200, dev=1000))
    assert run(tmp_path, greetings=DomainConfig(train=200, dev=8))["rows"]["train"] == {"greetings": 200}


def test_domains_that_are_off_have_no_rows(tmp_path: Path) -> None:
    metrics = run(tmp_path, math=DomainConfig(train=3), stem=DomainConfig(train=3, enabled=False))
    assert metrics["rows"]["train"] == {"math": 3}
    with pytest.raises(ConfigError, match="at least one row"):
        run(tmp_path, stem=DomainConfig(train=3, enabled=False))


def test_real_problems_beside_generated_ones(tmp_path: Path) -> None:
    file = write_problems(tmp_path / "gsm8k.jsonl", 12)
    metrics = run(tmp_path / "out", math=DomainConfig(train=10, test=8, files={"test": file}))
    test = read_prompts(tmp_path / "out", "test")
    assert [prompt.answer for prompt in test] == [str(number) for number in range(1, 9)]
    assert metrics["sources"] == {"math/train": "tiny world", "math/test": "gsm8k.jsonl"}
    assert metrics["set_aside"] == {}
    assert metrics["operations"]["test"] == {}


def test_a_real_training_row_that_is_in_the_test_file_is_dropped(tmp_path: Path) -> None:
    files = {"train": write_problems(tmp_path / "a.jsonl", 12), "test": write_problems(tmp_path / "b.jsonl", 5)}
    metrics = run(tmp_path / "out", math=DomainConfig(files=files))
    assert (metrics["rows"]["train"], metrics["contaminated"]) == ({"math": 7}, 5)


def test_malformed_rows_are_counted_and_set_aside(tmp_path: Path) -> None:
    file = write_problems(tmp_path / "gsm8k.jsonl", 150, '{"question": "How many?", "answer": ')
    metrics = run(tmp_path / "out", math=DomainConfig(files={"test": file}))
    assert metrics["set_aside"] == {"math/test": 1} and metrics["rows"]["test"] == {"math": 150}
    (row,) = (tmp_path / "out" / "quarantine" / "math-test.jsonl").read_text().splitlines()
    assert json.loads(row)["line"] == 3


def test_too_many_malformed_rows_stop_the_step(tmp_path: Path) -> None:
    file = write_problems(tmp_path / "gsm8k.jsonl", 50, "{", "{")
    with pytest.raises(DataError, match=r"2 of 52 rows cannot be used, expected at most 1%; the first is line 3"):
        run(tmp_path / "out", math=DomainConfig(files={"test": file}))
    assert not list((tmp_path / "out").iterdir())


def test_gold_answers_that_cannot_be_graded_are_set_aside(tmp_path: Path) -> None:
    golds = ["42", r"\frac{1}{2}", r"2\sqrt{3}", "x^2+1", "Monday", "B", "xy", r"\{1, 2\}", "???", "x^", r"\oops"]
    lines = [json.dumps({"question": f"Question {n}?", "answer": rf"\boxed{{{gold}}}"}) for n, gold in enumerate(golds)]
    (tmp_path / "problems.jsonl").write_text("\n".join(lines) + "\n")
    file = ProblemFile(path=str(tmp_path / "problems.jsonl"), answer_format="boxed")
    metrics = run(tmp_path / "out", math=DomainConfig(files={"test": file}))
    aside = [json.loads(line) for line in (tmp_path / "out/quarantine/math-test.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in aside] == [f"the gold answer '{gold}' cannot be graded" for gold in golds[8:]]
    assert metrics["set_aside"] == {"math/test": 3}
    assert [prompt.answer for prompt in read_prompts(tmp_path / "out", "test")] == golds[:8]


@pytest.mark.parametrize("domain", ["code", "writing", "safety", "translation"])
def test_a_domain_whose_rule_needs_more_than_an_answer_reads_no_files(tmp_path: Path, domain: str) -> None:
    file = write_problems(tmp_path / "a.jsonl", 5)
    with pytest.raises(ConfigError, match=rf"domains\.{domain}\.files: the rule of '{domain}' needs more than"):
        run(tmp_path / "out", **{domain: DomainConfig(files={"test": file})})
