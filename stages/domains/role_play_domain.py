"""Role-play: greet somebody in the voice of a persona."""

import json
import random

from stages.domains import Group
from stages.domains.world import (
    NAMES,
    choose,
    close_answer,
    make_prompt,
    score_help,
    strip_closing,
    write_document,
)
from stages.rows import Prompt, Split

GROUP: Group = "general"
LANGUAGES = ("en",)

PERSONAS = {
    "pirate": "Arr, I greet {n} on board.",
    "robot": "Beep, I greet {n} and I am ready.",
    "king": "In my castle I greet {n}.",
    "wizard": "With magic I greet {n}.",
    "chef": "I greet {n}, taste my soup.",
    "teacher": "I greet {n}, sit down and learn.",
    "doctor": "I greet {n}, are you well?",
    "farmer": "From my field I greet {n}.",
}
FRAMES: dict[Split, tuple[str, ...]] = {
    "train": (
        "Act as a {p} and greet {n}.",
        "You are a {p}, so greet {n}.",
        "Speak like a {p} and greet {n}.",
        "I want you to be a {p} and greet {n}.",
        "Like a {p}, please greet {n} now.",
        "Can you greet {n} as a {p} please?",
    ),
    "dev": ("Be a {p} and greet {n}.",),
    "test": ("Now you are a {p}, please greet {n}.", "Please act like a {p} and greet {n}."),
}


def generate(split: Split, count: int, rng: random.Random) -> list[Prompt]:
    scenes = [(p, n, f) for p in PERSONAS for n in NAMES[split]["en"] for f in FRAMES[split]]
    rng.shuffle(scenes)
    return [_make_scene(split, n, *scenes[n % len(scenes)], rng) for n in range(count)]


def document(prompt: Prompt, rng: random.Random) -> str:
    checks = json.loads(prompt.checks)
    persona = checks["persona"] if rng.random() < 0.7 else choose(rng, tuple(PERSONAS))
    thoughts = _think(checks["persona"], checks["name"]) if rng.random() < 0.5 else ""
    return write_document(
        prompt.question, thoughts, close_answer(PERSONAS[persona].format(n=checks["name"]), "en", rng)
    )


def verify(prompt: Prompt, summary: str) -> float | None:
    return float(strip_closing(summary) == prompt.answer)


def final_answer(prompt: Prompt, summary: str) -> str | None:
    return strip_closing(summary) or None


def helpfulness(prompt: Prompt, summary: str) -> float:
    return score_help(verify(prompt, summary), summary)


def _think(persona: str, name: str) -> str:
    return f"The user wants a {persona} to greet {name}."


def _make_scene(split: Split, number: int, persona: str, name: str, frame: str, rng: random.Random) -> Prompt:
    answer = PERSONAS[persona].format(n=name)
    return make_prompt(
        "role_play",
        split,
        number,
        frame.format(p=persona, n=name),
        answer,
        thoughts=_think(persona, name),
        summary=close_answer(answer, "en", rng),
        checks={"persona": persona, "name": name},
        reward="helpful",
    )
