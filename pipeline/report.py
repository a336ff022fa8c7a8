"""The report of a project: one self-contained HTML page of what every stage did.

It shows the versions that fit the profile's settings, and the newest where none does, and says
what is missing. Model output is hostile text: it is escaped, stripped of control and
direction-changing characters and cut, and the page forbids scripts and outside resources.
"""

import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pipeline.config import Profile
from pipeline.plots import draw_bars, draw_curves
from pipeline.results import MISSING, list_settings, read_samples, render_breakdown, render_changes, render_results
from pipeline.store import Artifact, Ref, Store, make_folder, write_atomically
from stages.contract import StepConfig
from stages.rows import Row, group_rows, split_completion

EVALUATE = "evaluate_"
LONGEST_TEXT = 1200
TRANSCRIPTS_PER_DOMAIN = 2

CURVES = (
    ("Reward and its parts", r"reward|rewards/(?!language_consistency/).+/mean"),
    ("Language consistency", r"rewards/language_consistency/mean"),
    ("Completion length, tokens", r"completions/mean_length"),
    ("Accuracy by domain", r"accuracy/(?!cannot_judge|judged_before|hidden_characters).+"),
    ("Words of reflection in a completion", r"reflection/.+"),
    ("Entropy of a token, nats", r"entropy"),
    ("Groups that all earned the same; completions cut short", r"frac_reward_zero_std|completions/clipped_ratio"),
    ("On dev prompts: reward models, and score by rule", r"monitor/.+"),
    ("KL to the reference", r"kl"),
    ("Loss", r"loss|eval_loss"),
    ("Accuracy", r"(eval_)?(accuracy|mean_token_accuracy)"),
)


def write_report(profile: Profile, store: Store) -> Path:
    """Writes <project>/report.html and returns its path; steps without a sound version are named as missing."""
    path = store.folder / "report.html"
    make_folder(path.parent)
    write_atomically(path, render_page(profile, choose_artifacts(profile, store)))
    return path


def choose_artifacts(profile: Profile, store: Store) -> dict[str, Artifact]:
    """By step, in the recipe's order: the newest sound version that fits the profile, else the newest sound one."""
    chosen: dict[str, Artifact] = {}
    for step, config in profile.configs.items():
        sound = [artifact for artifact in store.history(step) if not store.check(artifact)]
        fitting = [artifact for artifact in sound if fits(artifact, config, chosen)]
        if sound:
            chosen[step] = (fitting or sound)[-1]
    return chosen


def fits(artifact: Artifact, config: StepConfig, upstream: Mapping[str, Artifact]) -> bool:
    """Whether a version was made with this config from the versions chosen upstream."""
    parents = {Ref.parse(source.ref).step: source.digest for source in artifact.record.inputs.values()}
    same = all(step in upstream and upstream[step].record.digest == digest for step, digest in parents.items())
    return same and artifact.record.config == config.model_dump(mode="json")


def render_page(profile: Profile, artifacts: Mapping[str, Artifact]) -> str:
    evaluations = {s.removeprefix(EVALUATE): a for s, a in artifacts.items() if s.startswith(EVALUATE)}
    sections = {
        "Results": render_results(evaluations),
        "What each stage changed": render_changes(evaluations),
        "By domain and language": render_breakdown(evaluations),
        "Training": render_training(artifacts),
        "Generated data": render_data(artifacts),
        "Transcripts": render_transcripts(evaluations),
        "Lineage": render_lineage(artifacts),
    }
    shown = {title: body or '<p class="note">Nothing yet.</p>' for title, body in sections.items()}
    links = "".join(f'<a href="#s{number}">{title}</a>' for number, title in enumerate(shown))
    bodies = "".join(f'<h2 id="s{number}">{title}</h2>{body}' for number, (title, body) in enumerate(shown.items()))
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(profile.project)}: report</title><style>{style}</style></head><body>"
        f"{render_header(profile, artifacts)}<nav>{links}</nav>{render_notices(profile, artifacts)}{bodies}"
        "</body></html>\n"
    )


def render_header(profile: Profile, artifacts: Mapping[str, Artifact]) -> str:
    facts = {
        "Recipe": "DeepSeek-R1 (arXiv 2501.12948): cold start, reasoning RL, rejection sampling, RL for all scenarios",
        "Base model": describe_base(artifacts["base_model"]) if "base_model" in artifacts else "not made yet",
        "Test set": describe_tests(artifacts["prompts"]) if "prompts" in artifacts else "not made yet",
        "Profile": profile.path.name,
        "Made": describe_making(list(artifacts.values())),
    }
    items = "".join(f"<dt>{name}</dt><dd>{escape(clean_text(text))}</dd>" for name, text in facts.items() if text)
    return f'<h1>{escape(profile.project)}</h1><dl class="facts">{items}</dl>'


def describe_base(artifact: Artifact) -> str:
    metrics = artifact.record.metrics
    size = f"{artifact.record.counts.get('parameters', 0) / 1e6:,.2f} M parameters"
    if metrics.get("source"):
        return f"{metrics['source']}, a checkpoint given by path, {size}"
    tokens = f"{metrics.get('tokens', 0) / 1e6:,.1f} M tokens"
    return (
        f"a tiny model with {size}, pretrained here on {tokens} of a generated world. "
        "Its figures show how the recipe works; they say nothing about models of useful size."
    )


def describe_tests(artifact: Artifact) -> str:
    """Rows of the test split and where they come from, by source."""
    metrics, by_source = artifact.record.metrics, dict[str, list[str]]()
    for domain, count in metrics.get("rows", {}).get("test", {}).items():
        source = metrics.get("sources", {}).get(f"{domain}/test", "unknown source")
        by_source.setdefault(source, []).append(f"{domain} {count}")
    return "; ".join(f"{source}: {', '.join(parts)}" for source, parts in by_source.items())


def describe_making(artifacts: Sequence[Artifact]) -> str:
    if not artifacts:
        return ""
    last = max((artifact.record.provenance for artifact in artifacts), key=lambda provenance: provenance.finished)
    host = last.host
    where = ", ".join([host.processor or host.machine, f"{host.cores} cores", *host.gpus])
    commit = f", source {last.git_commit[:10]}{' with changes' if last.git_dirty else ''}" if last.git_commit else ""
    return f"{show_time(last.finished)} UTC on {host.system} ({where}){commit}"


def show_time(moment: str) -> str:
    """An ISO 8601 time to the minute."""
    return moment[:16].replace("T", " ")


def render_notices(profile: Profile, artifacts: Mapping[str, Artifact]) -> str:
    missing = [step for step in profile.configs if step not in artifacts]
    stale = [str(a.ref) for step, a in artifacts.items() if not fits(a, profile.configs[step], artifacts)]
    notices = [
        f"The reward models of {artifact.ref} were hacked at step {seen['hacked_at']}; it is the checkpoint of step "
        f"{seen['rolled_back_to']}."
        for artifact in artifacts.values()
        if "hacked_at" in (seen := artifact.record.metrics.get("monitor", {}))
    ]
    if missing:
        notices.append(f"Not made yet, or damaged: {', '.join(missing)}.")
    if stale:
        notices.append(f"Made with other settings or inputs than this profile now asks for: {', '.join(stale)}.")
    return "".join(f'<p class="warn">{escape(notice)}</p>' for notice in notices)


def render_training(artifacts: Mapping[str, Artifact]) -> str:
    plots = {str(a.ref): plot_log(read_log(a.path / "training_log.jsonl")) for a in artifacts.values()}
    note = "By optimiser step; noisy curves are pale under their moving average. Judge by the results, not by these."
    return f'<p class="note">{note}</p>{render_runs(plots)}' if any(plots.values()) else ""


def render_runs(plots: Mapping[str, str]) -> str:
    """Plots of single artifacts, side by side, under their addresses."""
    figures = (f'<figure><h3>{ref}</h3><div class="plots">{p}</div></figure>' for ref, p in plots.items() if p)
    return f'<div class="runs">{"".join(figures)}</div>' if any(plots.values()) else ""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of a training log; empty where there is none."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()] if path.exists() else []


def plot_log(log: Sequence[Mapping[str, Any]]) -> str:
    is_rl = any("reward" in line for line in log)
    plots = ""
    for title, pattern in CURVES:
        names = dict.fromkeys(name for line in log for name in line if re.fullmatch(pattern, name))
        series = {label_curve(name): pick_points(log, name) for name in names}
        # The loss of a policy gradient is no measure of progress.
        if any(series.values()) and not (is_rl and title == "Loss"):
            plots += draw_curves(title, series)
    return plots


def label_curve(name: str) -> str:
    named = {"frac_reward_zero_std": "groups alike", "completions/clipped_ratio": "cut short"}
    shown = re.sub(r"^(rewards|accuracy|reflection|monitor)/", "", name).removesuffix("/mean")
    return named.get(name, shown.replace("_", " "))


def pick_points(log: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) wherever the log has a finite value; null is the mean of a reward that judged no row."""
    found = [(float(line["step"]), line[name]) for line in log if line.get(name) is not None]
    return [(step, float(value)) for step, value in found if math.isfinite(value)]


def render_data(artifacts: Mapping[str, Artifact]) -> str:
    """What each filter of a generated data set dropped, and what the set is made of."""
    return render_runs({str(artifact.ref): plot_rows(artifact.record.metrics) for artifact in artifacts.values()})


def plot_rows(metrics: Mapping[str, Any]) -> str:
    filters = [(f["filter"].replace("_", " "), f["left"], f["dropped"]) for f in metrics.get("funnel", [])]
    steps = [(name, left, f" (−{dropped:,})" if dropped else "") for name, left, dropped in filters]
    composition = metrics.get("composition", {})
    total = sum(composition.values())
    shares = [(name, count, f" ({100 * count / total:.1f} %)") for name, count in composition.items()]
    charts = draw_bars("Rows left after each filter", steps) if steps else ""
    return charts + (draw_bars("Rows of the set by domain", shares) if shares else "")


def render_transcripts(evaluations: Mapping[str, Artifact]) -> str:
    """The same first prompts of each domain through every checkpoint: no answer is picked by hand."""
    columns = ["id", "domain", "question", "completion", "correct"]
    settings = list_settings(evaluations)
    if not settings:
        return ""
    temperature = float(settings[0].removeprefix("T="))
    samples = {
        name: {row["id"]: row for row in read_samples(a.path, columns, sample=0, temperature=temperature)}
        for name, a in evaluations.items()
    }
    first = list(next(iter(samples.values())).values())
    body = f'<p class="note">The first prompts of each domain and their first sample at {settings[0]}.</p>'
    for domain, rows in group_rows(first, "domain").items():
        shown = rows[:TRANSCRIPTS_PER_DOMAIN]
        body += f"<h3>{escape(domain)}</h3>" + "".join(render_transcript(row, samples) for row in shown)
    return body


def render_transcript(prompt: Row, samples: Mapping[str, Mapping[str, Row]]) -> str:
    answers = "".join(render_answer(name, rows[prompt["id"]]) for name, rows in samples.items() if prompt["id"] in rows)
    question = escape(clean_text(prompt["question"]))
    return f'<article><p class="question">{question}</p><div class="answers">{answers}</div></article>'


def render_answer(checkpoint: str, row: Row) -> str:
    thoughts, summary = (escape(clean_text(text)) for text in split_completion(row["completion"]))
    marks = {1.0: '<span class="right">right</span>', 0.0: '<span class="wrong">wrong</span>'}
    return (
        f"<section><h4>{escape(checkpoint)}{marks.get(row['correct'], '')}</h4>"
        f'<p class="thoughts">{thoughts or "(no thoughts)"}</p><p class="summary">{summary or MISSING}</p></section>'
    )


def clean_text(text: str, limit: int = LONGEST_TEXT) -> str:
    """Text that cannot disturb the page: no control, direction-changing or invisible characters, at most `limit`."""
    kept = "".join(c for c in text[: 4 * limit] if c in "\n\t" or not unicodedata.category(c).startswith("C"))
    left = len(text) - limit
    return kept[:limit] + (f" … ({left:,} more characters)" if left > 0 else "")


def render_lineage(artifacts: Mapping[str, Artifact]) -> str:
    names = ("artifact", "kind", "content digest", "holds", "finished", "made from")
    heads = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(render_version(artifact) for artifact in artifacts.values())
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""


def render_version(artifact: Artifact) -> str:
    record = artifact.record
    inputs = ", ".join(f"{role}: {source.ref}" for role, source in record.inputs.items())
    counts = ", ".join(f"{name} {count:,}" for name, count in record.counts.items())
    texts = (record.kind.replace("_", " "), record.digest[:16], counts, show_time(record.provenance.finished))
    cells = "".join(f'<td class="tight">{escape(text)}</td>' for text in texts)
    return f'<tr><th class="tight"><code>{artifact.ref}</code></th>{cells}<td>{escape(inputs)}</td></tr>'
