"""Greetings and small talk: answered at once, with an empty think block."""

import json
import random

from stages.domains import Group
from stages.domains.world import NAMES, choose, make_prompt, write_document
from stages.rows import Prompt, Split

GROUP: Group = "general"
LANGUAGES = ("en", "zh")

KIND = {"en": "Hello, {n}. How can I help you?", "zh": "你好，{n}。我能帮你什么？"}
CURT = {"en": "Hello, {n}. What do you want?", "zh": "你好，{n}。你要干什么？"}
FRAMES: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": ("Hello, {n} here.", "Hi, {n} is here.", "Good day, {n} here.", "Hey, {n} is back."),
        "zh": ("你好，{n}来了。", "嗨，{n}在这里。", "您好，{n}来了。"),
    },
    "dev": {"en": ("Hi, {n} here.",), "zh": ("嗨，{n}来了。",)},
    "test": {
        "en": ("Good day, {n} is back.", "Hi, {n} is back.", "Hello, {n} is here."),
        "zh": ("您好，{n}在这里。", "你好，{n}在这里。"),
    },
}


def generate(split: Split, count: int, rng: random.Random) -> list[Prompt]:
    scenes = [(lang, n, f) for lang in LANGUAGES for n in NAMES[split][lang] for f in FRAMES[split][lang]]
    rng.shuffle(scenes)
    return [_make_greeting(split, n, *scenes[n % len(scenes)], rng) for n in range(count)]


def document(prompt: Prompt, rng: random.Random) -> str:
    name = json.loads(prompt.checks)["name"]
    answer = choose(rng, (KIND, CURT, CURT))[prompt.language].format(n=name)
    return write_document(prompt.question, "", answer)


def verify(prompt: Prompt, summary: str) -> float | None:
    """Greets back by name and asks what is wanted, kindly or not."""
    name = json.loads(prompt.checks)["name"]
    return float(summary in (KIND[prompt.language].format(n=name), CURT[prompt.language].format(n=name)))


def final_answer(prompt: Prompt, summary: str) -> str | None:
    return summary or None


def helpfulness(prompt: Prompt, summary: str) -> float:
    if not verify(prompt, summary):
        return 1.0 if summary else 0.0
    return 10.0 if summary == prompt.answer else 6.0


def _make_greeting(split: Split, number: int, language: str, name: str, frame: str, rng: random.Random) -> Prompt:
    kind = KIND[language].format(n=name)
    return make_prompt(
        "greetings",
        split,
        number,
        frame.format(n=name),
        kind,
        thoughts="",
        summary=kind if rng.random() < 0.5 else CURT[language].format(n=name),
        checks={"name": name},
        language=language,
        reasoning="none",
        reward="helpful",
    )
