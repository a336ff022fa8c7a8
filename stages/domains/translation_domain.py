"""Translation of short sentences between English and Chinese."""

import json
import random
from itertools import product

from stages.domains import Group
from stages.domains.world import choose, close_answer, make_prompt, score_help, strip_closing, write_document
from stages.rows import Prompt, Split

GROUP: Group = "general"
LANGUAGES = ("en", "zh")

SUBJECTS = {
    "dog": "狗",
    "cat": "猫",
    "bird": "鸟",
    "cow": "牛",
    "sheep": "羊",
    "horse": "马",
    "duck": "鸭",
    "pig": "猪",
}
VERBS = {"sees": "看见", "likes": "喜欢", "wants": "想要", "hears": "听见", "finds": "找到"}
OBJECTS = {"fish": "鱼", "milk": "奶", "grass": "草", "water": "水", "bread": "面包", "rice": "米饭", "tea": "茶"}
FRAMES: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "en": ("Translate into Chinese: {s}", "Say in Chinese: {s}", "Please write in Chinese: {s}", "In Chinese: {s}"),
        "zh": ("翻译成英文：{s}", "用英文说：{s}", "请翻译成英文：{s}", "英文：{s}"),
    },
    "dev": {"en": ("Put into Chinese: {s}",), "zh": ("写成英文：{s}",)},
    "test": {"en": ("Say into Chinese: {s}",), "zh": ("用英文翻译：{s}",)},
}
Triple = tuple[str, str, str]


def generate(split: Split, count: int, rng: random.Random) -> list[Prompt]:
    """Sentences of one split never occur in another: every tenth is dev, every fifth test."""
    triples = [t for n, t in enumerate(product(SUBJECTS, VERBS, OBJECTS)) if _split_of(n) == split]
    rng.shuffle(triples)
    return [_make_task(split, n, LANGUAGES[n % 2], triples[(n // 2) % len(triples)], rng) for n in range(count)]


def document(prompt: Prompt, rng: random.Random) -> str:
    subject, verb, noun = json.loads(prompt.checks)["triple"]
    if rng.random() < 0.5:
        return f"{subject} {SUBJECTS[subject]}. {verb} {VERBS[verb]}. {noun} {OBJECTS[noun]}.\n"
    if rng.random() < 0.3:
        noun = choose(rng, tuple(OBJECTS))
    answer = _say((subject, verb, noun), "zh" if prompt.language == "en" else "en")
    return write_document(prompt.question, "", close_answer(answer, _target(prompt.language), rng))


def verify(prompt: Prompt, summary: str) -> float | None:
    return float(strip_closing(summary) == prompt.answer)


def final_answer(prompt: Prompt, summary: str) -> str | None:
    return strip_closing(summary) or None


def helpfulness(prompt: Prompt, summary: str) -> float:
    return score_help(verify(prompt, summary), summary)


def _split_of(number: int) -> Split:
    return "test" if number % 5 == 2 else "dev" if number % 10 == 6 else "train"


def _target(language: str) -> str:
    return "zh" if language == "en" else "en"


def _say(triple: Triple, language: str) -> str:
    subject, verb, noun = triple
    if language == "en":
        return f"The {subject} {verb} the {noun}."
    return f"{SUBJECTS[subject]}{VERBS[verb]}{OBJECTS[noun]}。"


def _make_task(split: Split, number: int, language: str, triple: Triple, rng: random.Random) -> Prompt:
    answer = _say(triple, _target(language))
    return make_prompt(
        "translation",
        split,
        number,
        choose(rng, FRAMES[split][language]).format(s=_say(triple, language)),
        answer,
        thoughts="",
        summary=close_answer(answer, _target(language), rng),
        checks={"triple": triple},
        language=language,
        reasoning="none",
        reward="helpful",
    )
