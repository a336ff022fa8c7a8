"""Short questions on facts the base model has read about."""

import json
import random

from stages.domains import Group
from stages.domains.world import choose, close_answer, make_prompt, score_help, strip_closing, write_document
from stages.rows import Prompt, Split

GROUP: Group = "general"
LANGUAGES = ("en",)

FACTS: dict[str, dict[str, str]] = {
    "capital": {
        "France": "Paris",
        "Japan": "Tokyo",
        "China": "Beijing",
        "Italy": "Rome",
        "Spain": "Madrid",
        "Egypt": "Cairo",
        "Kenya": "Nairobi",
        "Peru": "Lima",
        "Cuba": "Havana",
        "Norway": "Oslo",
        "Greece": "Athens",
        "Russia": "Moscow",
    },
    "color": {
        "grass": "green",
        "snow": "white",
        "coal": "black",
        "blood": "red",
        "the sky": "blue",
        "a lemon": "yellow",
        "a carrot": "orange",
        "chocolate": "brown",
    },
    "young": {
        "a dog": "puppy",
        "a cat": "kitten",
        "a cow": "calf",
        "a sheep": "lamb",
        "a horse": "foal",
        "a lion": "cub",
        "a goat": "kid",
        "a hen": "chick",
    },
}
QUESTIONS: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "capital": (
            "What is the capital of {s}?",
            "Name the capital of {s}.",
            "Which city is the capital of {s}?",
            "I need the capital of {s}.",
            "Can you give me the capital of {s} please?",
            "So what is the capital of {s} then?",
        ),
        "color": (
            "What is the color of {s}?",
            "Name the color of {s}.",
            "I need the color of {s}.",
            "Can you give me the color of {s} please?",
            "So what is the color of {s} then?",
        ),
        "young": (
            "What is the young of {s}?",
            "Name the young of {s}.",
            "I need the young of {s}.",
            "Can you give me the young of {s} please?",
            "So what is the young of {s} then?",
        ),
    },
    "dev": {
        "capital": ("Say the capital of {s}.",),
        "color": ("Say the color of {s}.",),
        "young": ("Say the young of {s}.",),
    },
    "test": {
        "capital": ("Tell me the capital of {s}.", "I want to know the capital of {s}."),
        "color": ("Tell me the color of {s}.", "I want to know the color of {s}."),
        "young": ("Tell me the young of {s}.", "I want to know the young of {s}."),
    },
}


def generate(split: Split, count: int, rng: random.Random) -> list[Prompt]:
    """All facts in all wordings, shuffled; repeats (with other closing words) once they run out."""
    facts = [(r, s, q) for r, known in FACTS.items() for s in known for q in QUESTIONS[split][r]]
    rng.shuffle(facts)
    return [_make_question(split, n, *facts[n % len(facts)], rng) for n in range(count)]


def document(prompt: Prompt, rng: random.Random) -> str:
    checks = json.loads(prompt.checks)
    known = FACTS[checks["relation"]]
    said = prompt.answer if rng.random() < 0.75 else choose(rng, sorted(set(known.values())))
    thoughts = _think(checks["relation"], checks["subject"]) if rng.random() < 0.5 else ""
    answer = close_answer(_state(checks["relation"], checks["subject"], said), "en", rng)
    return write_document(prompt.question, thoughts, answer)


def verify(prompt: Prompt, summary: str) -> float | None:
    checks = json.loads(prompt.checks)
    return float(strip_closing(summary) == _state(checks["relation"], checks["subject"], prompt.answer))


def final_answer(prompt: Prompt, summary: str) -> str | None:
    return strip_closing(summary) or None


def helpfulness(prompt: Prompt, summary: str) -> float:
    return score_help(verify(prompt, summary), summary)


def _make_question(split: Split, number: int, relation: str, subject: str, wording: str, rng: random.Random) -> Prompt:
    answer = FACTS[relation][subject]
    return make_prompt(
        "factual_qa",
        split,
        number,
        wording.format(s=subject),
        answer,
        thoughts=_think(relation, subject),
        summary=close_answer(_state(relation, subject, answer), "en", rng),
        checks={"relation": relation, "subject": subject},
        reward="helpful",
    )


def _think(relation: str, subject: str) -> str:
    return f"The user asks for the {relation} of {subject}."


def _state(relation: str, subject: str, answer: str) -> str:
    return f"The {relation} of {subject} is {answer}."
