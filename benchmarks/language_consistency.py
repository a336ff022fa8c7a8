"""How fast thoughts are judged by language and form, and how well sentences of one script are told apart.

    python -m benchmarks.language_consistency [--data FOLDER] [--repeats N]

Thoughts of 4 kB are put together from questions of MGSM, numbers and LaTeX. Rates are per second of
processor time on one core. The first half of the questions warms caches up, the second is measured.
Language identifiers other than the project's own are compared where they are installed.
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median

from benchmarks.measurement import print_figure
from stages.language import (
    LATIN_LANGUAGES,
    MIN_WORDS,
    SEGMENT_END,
    closest_language,
    count_votes,
    count_words,
    find_words,
    load_identifier,
)
from stages.notation import clean_text
from stages.rewards import think_format

DATA = Path(os.environ.get("R1_DATA", Path(__file__).parents[2] / "shared" / "data"))
THOUGHTS_BYTES, NUMBER = 4000, 300
MIXTURES = (("zh", "en", 5000), ("ja", "en", 5000), ("ru", "en", 5000), ("en", "de", 1000), ("fr", "es", 1000))
"""Target, the language of one sentence in ten, and the rate per second that is asked for."""
FORMAT_BAR = 50_000
COMPARED = ("en", "de", "fr", "es")
"""Latin-script languages of MGSM; the identifiers choose among all that the project knows."""
Accepts = Callable[[Sequence[str], str], bool]
"""Whether the words of a sentence are in a language."""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language_consistency", description="Language rewards.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with mgsm/mgsm_<language>.tsv")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args(arguments)
    for target, other, bar in MIXTURES:
        measure_language(given.data, target, other, bar, given.repeats)
    measure_format(given.data, given.repeats)
    measure_identifiers(given.data)


def measure_language(data: Path, target: str, other: str, bar: int, repeats: int) -> None:
    warm, texts = (write_thoughts(data, target, other, half) for half in (0, 1))
    for text in warm:
        count_words(text, target)
    rates = [measure_rate(lambda text: count_words(text, target), texts) for _ in range(repeats)]
    print_figure(f"thoughts in {target}, some {other}", median(rates), "1/s", {"language": rates}, bar=bar)


def measure_format(data: Path, repeats: int) -> None:
    texts = [f"<think>{thoughts}</think> The answer is 7." for thoughts in write_thoughts(data, "en", "de", 1)]
    rates = [measure_rate(lambda text: think_format.has_format(text, "required"), texts) for _ in range(repeats)]
    print_figure("format of completions", median(rates), "1/s", {"format": rates}, bar=FORMAT_BAR)


def measure_rate(judge: Callable[[str], object], texts: Sequence[str]) -> float:
    """Texts per second of processor time."""
    began = time.process_time()
    for text in texts:
        judge(text)
    return len(texts) / (time.process_time() - began)


def write_thoughts(data: Path, target: str, other: str, half: int) -> list[str]:
    rng = random.Random(f"{target} {other} {half}")
    own, foreign = (read_questions(data, language)[half::2] for language in (target, other))
    return ["".join(write_steps(rng, own, foreign)) for _ in range(NUMBER)]


def write_steps(rng: random.Random, own: Sequence[str], foreign: Sequence[str]) -> Iterator[str]:
    """Questions and small calculations, until they are long enough."""
    written = 0
    while written < THOUGHTS_BYTES:
        a, b = rng.randint(2, 99), rng.randint(2, 99)
        sums = (f" ${a} + {b} = {a + b}$ ", f" {a} * {b} = {a * b}\n", rf" \(\frac{{{a}}}{{{b}}}\), ")
        step = rng.choice(own if rng.random() < 0.9 else foreign) + rng.choice(sums)
        written += len(step.encode())
        yield step


def read_questions(data: Path, language: str) -> list[str]:
    lines = (data / "mgsm" / f"mgsm_{language}.tsv").read_text(encoding="utf-8").splitlines()
    return [line.partition("\t")[0] for line in lines]


def measure_identifiers(data: Path) -> None:
    """Share of right decisions whether a sentence is in a language, over all sentences and compared languages."""
    sentences = [(language, words) for language in COMPARED for words in read_sentences(data, language)]
    for name, accepts in load_identifiers():
        accepts(sentences[0][1], "en")
        spent, right = list[float](), list[float]()
        for language, words in sentences:
            began = time.process_time()
            found = [accepts(words, target) for target in COMPARED]
            spent.append((time.process_time() - began) / len(COMPARED) * 1e6)
            right += [float(yes == (target == language)) for yes, target in zip(found, COMPARED, strict=True)]
        print_figure(f"sentences told by {name}", mean(right), "share", {"decisions": right})
        print_figure(f"time of a sentence, {name}", mean(spent), "us", {"sentences": spent})


def read_sentences(data: Path, language: str) -> list[list[str]]:
    """Words of each sentence that is long enough to be told alone."""
    texts = map(clean_text, read_questions(data, language))
    sentences = (find_words(segment)[1] for text in texts for segment in SEGMENT_END.split(text))
    return [words for words in sentences if len(words) >= MIN_WORDS]


def load_identifiers() -> Iterator[tuple[str, Accepts]]:
    identifier = load_identifier()
    yield "vote, then classifier", lambda words, target: closest_language(words, target) == target
    yield "vote alone", lambda words, target: lead_votes(words) == target
    yield "py3langid alone", lambda words, target: identifier.classify(" ".join(words))[0] == target
    if find_spec("pycld2"):
        import pycld2

        yield "pycld2", lambda words, target: pycld2.detect(" ".join(words), bestEffort=True)[2][0][1] == target
    if find_spec("lingua"):
        from lingua import IsoCode639_1, LanguageDetectorBuilder

        codes = {language: getattr(IsoCode639_1, language.upper()) for language in LATIN_LANGUAGES}
        detector = LanguageDetectorBuilder.from_iso_codes_639_1(*codes.values()).build()
        detect = detector.detect_language_of
        yield "lingua", lambda words, target: detect(" ".join(words)).iso_code_639_1 == codes[target]


def lead_votes(words: Sequence[str]) -> str:
    votes = count_votes(dict.fromkeys(words))
    return LATIN_LANGUAGES[votes.index(max(votes))]


if __name__ == "__main__":
    main(sys.argv[1:])
