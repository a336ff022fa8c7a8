"""One file per reward function, with TRL's signature.

A reward is `reward(completions, **columns) -> list[float | None]`; None means "not for this
row" or "cannot judge" and is ignored by TRL. Its id is its file name, or `package.module:function`
for one outside the project. Adding a reward is adding a file.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from stages.contract import ConfigError

Reward = Callable[..., list[float | None]]


def reward_names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def check_rewards(weights: Mapping[str, float], learned: Sequence[str] = ()) -> dict[str, float]:
    """`weights`, for validators. Raises ValueError for a name that no reward and none of the `learned` ones has; one
    outside the project is known when it is loaded."""
    known = [*reward_names(), *learned]
    for name in weights:
        if name not in known and ":" not in name:
            raise ValueError(f"no reward is called '{name}'; expected {', '.join(known)} or 'package.module:function'")
    return dict(weights)


def load_reward(name: str) -> Reward:
    """The reward called `name`, an id or `package.module:function`. Raises ConfigError if there is none."""
    module_name, dotted, function_name = name.partition(":")
    if not dotted and name not in reward_names():
        known = ", ".join([*reward_names(), "'package.module:function'"])
        raise ConfigError(f"reward '{name}' does not exist; expected one of: {known}")
    try:
        module = importlib.import_module(module_name if dotted else f"{__name__}.{name}")
        reward: Any = getattr(module, function_name if dotted else "reward")
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"reward '{name}' cannot be imported: {error}") from error
    if not callable(reward):
        raise ConfigError(f"reward '{name}' is a {type(reward).__name__}; expected a function")
    # TRL logs `rewards/<function name>`.
    reward.__name__ = function_name if dotted else name
    return cast(Reward, reward)
