"""What parts of the gateway cost a task: it as it is, and without each of them, in turns."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bench import contestants, scaling
from bench.contestants import Command
from bench.processes import BenchError
from bench.scenarios import QUICK, Extent, Figures
from bench.target import Target

PARTS: Final = ("monitoring", "security")  # of bench.without, which changes what it is imported beside
WHOLE: Final = "the gateway as it is"
_ROUNDS: Final = 9
_KNOWN: Final = 100
_FIGURES: Final = ("enqueue", "dispatch")


def run(target: Target, *, quick: bool, tell: Callable[[str], None]) -> str:
    """The table, as Markdown."""
    extent = QUICK if quick else replace(Extent(), enqueue_seconds=3)
    seen: dict[str, list[Figures]] = {WHOLE: [], **{part: [] for part in PARTS}}
    rounds = 1 if quick else _ROUNDS
    for number in range(rounds):
        # The other way round each time: whatever the machine does meanwhile, it does to each of them.
        for name in list(seen)[:: 1 if number % 2 else -1]:
            tell(f"round {number + 1}/{rounds}  {name if name == WHOLE else f'without {name}'}")
            command = contestants.gateway if name == WHOLE else _without(name)
            try:
                seen[name].append(scaling.whole_task(target, extent, known=_KNOWN, command=command))
            except BenchError as problem:
                tell(f"         {problem}")
    return table(seen)


def _without(part: str) -> Callable[..., Command]:
    def command(*args: str | int, **kwargs: str | int) -> Command:
        made = contestants.gateway(*args, **kwargs)  # type: ignore[arg-type]
        python, _, _, *rest = made.argv
        return Command([python, "-m", "bench.without", part, *rest], made.env)

    return command


_HEAD: Final = """\
CPU seconds per 1,000 tasks, Redis included: medians of the rounds, and the least. A part's share is what the gateway
costs more with it than without it, round by round, in the middle.

|  | taking in | the least | dispatching | the least | share of taking in | share of dispatching |
| --- | --- | --- | --- | --- | --- | --- |"""


def table(seen: dict[str, list[Figures]]) -> str:
    """What each round found, by what was measured."""
    lines = [_HEAD]
    for name, rounds in seen.items():
        cells = [WHOLE if name == WHOLE else f"without {name}"]
        for figure in _FIGURES:
            values = [one[figure] for one in rounds]
            cells += [f"{statistics.median(values):.4f}", f"{min(values):.4f}"] if values else ["–", "–"]
        cells += ["", ""] if name == WHOLE else [_share(seen[WHOLE], rounds, figure) for figure in _FIGURES]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(whole: list[Figures], without: list[Figures], figure: str) -> str:
    if not whole or len(whole) != len(without):
        return "–"
    shares = [1 - less[figure] / more[figure] for more, less in zip(whole, without, strict=True)]
    return f"{statistics.median(shares):.1%}"
