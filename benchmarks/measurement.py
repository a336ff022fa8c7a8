"""One measured figure, printed as a line of JSON."""

import json
from collections.abc import Mapping, Sequence
from statistics import median

from pipeline.provenance import describe_host


def print_figure(name: str, value: float, unit: str, sides: Mapping[str, Sequence[float]], **bars: float) -> None:
    """`value` with the medians and the counts of what it was made from; `bars` are limits it is held to."""
    measured = {side: {"median": round(median(values), 3), "n": len(values)} for side, values in sides.items()}
    figure = {"name": name, "value": round(value, 3), "unit": unit, **bars, "sides": measured}
    print(json.dumps({**figure, "machine": describe_host().model_dump(mode="json")}), flush=True)
