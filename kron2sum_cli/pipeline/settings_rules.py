"""Rules that the settings of several commands share: each gives a line for everything that breaks it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from kron2sum_cli.errors import UsageError

if TYPE_CHECKING:
    from kron2sum_cli.pipeline.export_settings import ExportSettings
    from kron2sum_cli.pipeline.settings import FitSettings, ScanSettings

STDIO = "-"
"""The file name that stands for standard input or output."""


def raise_all(problems: Iterable[str]) -> None:
    """Raise one `UsageError` with a line for each problem, if there is any."""
    found = list(problems)
    if found:
        raise UsageError("\n".join(found))


def outside(option: str, value: float, low: float, high: float) -> list[str]:
    """What is wrong with a number that is not within two bounds, or NaN."""
    return [] if low <= value <= high else [f"{option} {value:g}: must lie between {low:g} and {high:g}"]


def repeated(option: str, names: Iterable[str]) -> list[str]:
    """What is wrong with an option that names something twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    return [f"{option}: {', '.join(twice)} named more than once"] if twice else []


def not_one_of(option: str, value: str, choices: tuple[str, ...]) -> list[str]:
    """What is wrong with a word that is no choice."""
    return [] if value in choices else [f"{option} {value}: must be one of {', '.join(choices)}"]


def stdin_twice(paths: Iterable[str]) -> list[str]:
    """What is wrong with inputs of which more than one is standard input."""
    times = sum(path == STDIO for path in paths)
    return ["only one input can come from standard input (-)"] if times > 1 else []


def empty_texts(settings: "FitSettings | ScanSettings | ExportSettings") -> Iterable[str]:
    """Options given as an empty text, such as an unset shell variable leaves behind, and an output without a name."""
    values = {record.name: getattr(settings, record.name) for record in fields(settings)} | {"log": settings.common.log}
    for name, value in values.items():
        if value == "":
            yield f"--{name.replace('_', '-')}: a value is needed"
    if settings.out.endswith("/"):
        yield f"--out {settings.out}: is a folder; name a file in it"
