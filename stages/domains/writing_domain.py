"""Short writing: a given number of sentences about somebody."""

import json
import random

from stages.domains import Group
from stages.domains.world import NAMES, choose, close_answer, make_prompt, score_help, strip_closing, write_document
from stages.rows import Prompt, Split

GROUP: Group = "general"
LANGUAGES = ("en",)

COUNTS = {1: "one sentence", 2: "two sentences", 3: "three sentences"}
SAYINGS = (
    "Here {t} is happy.",
    "Now {t} is near us.",
    "I like {t}.",
    "We see {t} every day.",
    "Today {t} makes me happy.",
    "Look at {t} now.",
)
MOODS = ("nice", "short", "simple", "calm", "bright", "quiet", "plain", "fresh", "sweet", "warm")
FRAMES: dict[Split, tuple[str, ...]] = {
    "train": (
        "Write {c} about {t}, {m} please.",
        "Give me {c} on {t}, make it {m}.",
        "I need {c} about {t}, all {m}.",
        "Now make {c} on {t} and be {m}.",
        "Can you write {c} about {t} for me, {m} please?",
        "Here is a task: {c} about {t} that are {m}.",
    ),
    "dev": ("Compose {c} about {t}, {m} please.",),
    "test": ("I would like {c} about {t}, {m} please.", "Please write {c} about {t} in a {m} way."),
}


def generate(split: Split, count: int, rng: random.Random) -> list[Prompt]:
    tasks = [(n, t, m, f) for n in COUNTS for t in NAMES[split]["en"] for m in MOODS for f in FRAMES[split]]
    rng.shuffle(tasks)
    return [_make_task(split, n, *tasks[n % len(tasks)], rng) for n in range(count)]


def document(prompt: Prompt, rng: random.Random) -> str:
    checks = json.loads(prompt.checks)
    if rng.random() < 0.15:
        return _write(choose(rng, NAMES["train"]["en"]), 3, rng) + "\n"
    count = choose(rng, (1, 2, 3)) if rng.random() < 0.5 else checks["count"]
    thoughts = _think(checks["count"], checks["topic"]) if rng.random() < 0.5 else ""
    return write_document(prompt.question, thoughts, close_answer(_write(checks["topic"], count, rng), "en", rng))


def verify(prompt: Prompt, summary: str) -> float | None:
    """The asked number of different sentences, each naming the topic."""
    checks = json.loads(prompt.checks)
    sentences = [s.strip() for s in strip_closing(summary).split(".") if s.strip()]
    on_topic = all(checks["topic"] in sentence for sentence in sentences)
    return float(len(sentences) == len(set(sentences)) == checks["count"] and on_topic)


def final_answer(prompt: Prompt, summary: str) -> str | None:
    return strip_closing(summary) or None


def helpfulness(prompt: Prompt, summary: str) -> float:
    return score_help(verify(prompt, summary), summary)


def _write(topic: str, count: int, rng: random.Random) -> str:
    return " ".join(rng.sample(SAYINGS, count)).format(t=topic)


def _think(count: int, topic: str) -> str:
    return f"The user wants {COUNTS[count]} about {topic}."


def _make_task(split: Split, number: int, count: int, topic: str, mood: str, frame: str, rng: random.Random) -> Prompt:
    text = _write(topic, count, rng)
    return make_prompt(
        "writing",
        split,
        number,
        frame.format(c=COUNTS[count], t=topic, m=mood),
        text,
        thoughts=_think(count, topic),
        summary=close_answer(text, "en", rng),
        checks={"count": count, "topic": topic},
        reward="helpful",
    )
