"""What enters a fingerprint, and how a change is named."""

from dataclasses import replace

from pipeline.fingerprint import Identity, explain, identify
from tests.toy_stage import STEPS, WeighConfig

OLD = Identity("weigh", 1, {"scale": 1.0, "parts": {"code": {"on": True}}, "list": [1, 2]}, {"data": "a" * 64})


def test_order_of_keys_does_not_matter() -> None:
    shuffled = replace(OLD, config={key: OLD.config[key] for key in reversed(list(OLD.config))})
    assert shuffled.fingerprint == OLD.fingerprint


def test_every_part_matters() -> None:
    changed = [
        replace(OLD, step="refine"),
        replace(OLD, revision=2),
        replace(OLD, config={**OLD.config, "scale": 2.0}),
        replace(OLD, inputs={"data": "b" * 64}),
        replace(OLD, inputs={"rows": "a" * 64}),
    ]
    assert len({identity.fingerprint for identity in (OLD, *changed)}) == 6


def test_identify_takes_the_resolved_config() -> None:
    identity = identify(STEPS[1], WeighConfig(scale=3), {"data": "a"})
    assert identity.config["scale"] == 3.0
    assert identity.config["seed"] == 0


def test_explain_names_field_input_and_revision() -> None:
    new = Identity(
        "weigh", 2, {"scale": 2.0, "parts": {"code": {"on": False}}, "list": [1, 2], "extra": "x"}, {"data": "b" * 64}
    )
    assert explain(OLD, new, "section") == [
        "revision of weigh 1 -> 2",
        'section.extra (absent) -> "x"',
        "section.parts.code.on true -> false",
        "section.scale 1.0 -> 2.0",
        "input data aaaaaaaa -> bbbbbbbb",
    ]
    assert explain(OLD, OLD) == []


def test_explain_sees_a_change_beyond_what_it_shows() -> None:
    (reason,) = explain(replace(OLD, config={"text": "x" * 99}), replace(OLD, config={"text": "x" * 98 + "y"}))
    before, after = reason.removeprefix("weigh.text ").split(" -> ")
    assert before != after
