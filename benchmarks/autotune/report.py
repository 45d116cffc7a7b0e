"""What replays say: medians and quartiles, trials until the optimum is near, who is better than the genetic algorithm.

What holds here: strategies are compared seed by seed on the same table; p is that of a two-sided Wilcoxon signed-rank
test on the trials to 95 % of the table's optimum, where a search that did not get there counts one more than it had.
How well the model ranks schedules of a task that it has not seen is told by leaving one task out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.autotune.replay import MARKS, TRIALS, features_of, replay
from benchmarks.autotune.tables import Table
from tracedsl.autotune.model import Trees

Array = np.ndarray[Any, Any]
Rows = dict[str, dict[str, dict[str, list[Any]]]]      # table -> strategy -> "shares" (at MARKS), "trials", "seconds"

RIVAL = "genetic"
TOP = 0.02      # the fastest share of a table


def run(tables: Sequence[Table], strategies: Sequence[str], seeds: int, file: Path, say: Callable[[str], None]) -> Rows:
    """Replay all strategies on all tables; what `file` has is not repeated."""
    rows: Rows = json.loads(file.read_text()) if file.exists() else {}
    for table in tables:
        features = features_of(table)
        for name in strategies:
            found = rows.setdefault(table.name, {}).setdefault(name, {"shares": [], "trials": [], "seconds": []})
            for seed in range(len(found["trials"]), seeds):
                one = replay(table, name, seed, features)
                found["shares"].append([round(float(one.shares[mark - 1]), 4) for mark in MARKS])
                found["trials"].append(one.trials_to_near)
                found["seconds"].append(round(one.seconds, 3))
                file.write_text(json.dumps(rows))
            say(f"{table.name}, {name}: {np.median(found['trials']):.0f} trials")
    return rows


def markdown(tables: Sequence[Table], rows: Rows) -> Iterator[str]:
    """The tables of a results page."""
    yield "| table | points | default | within 95 % | " + " | ".join(next(iter(rows.values()))) + " |"
    yield "| --- | --- | --- | --- |" + " --- |" * len(next(iter(rows.values())))
    for table in tables:
        near = sum(s is not None and table.best / s >= 0.95 for s in table.seconds.values())
        cells = [_trials(found, rows[table.name].get(RIVAL, found), name) for name, found in rows[table.name].items()]
        yield (f"| {table.name} | {len(table.seconds)} | {100 * table.best / table.default:.0f} % | {near} | "
               + " | ".join(cells) + " |")
    yield ""
    yield "| table | strategy | " + " | ".join(f"at {mark}" for mark in MARKS) + " | seconds of its own |"
    yield "| --- | --- |" + " --- |" * (len(MARKS) + 1)
    for name, found in rows.items():
        for strategy, row in found.items():
            low, middle, high = np.quantile(np.array(row["shares"]), [0.25, 0.5, 0.75], axis=0)
            cells = [f"{100 * m:.1f} ({100 * a:.1f}-{100 * b:.1f})" for a, m, b in zip(low, middle, high)]
            yield f"| {name} | {strategy} | {' | '.join(cells)} | {np.median(row['seconds']):.2f} |"


def _trials(found: Mapping[str, Any], rival: Mapping[str, Any], name: str) -> str:
    from scipy.stats import wilcoxon

    mine, theirs = np.array(found["trials"]), np.array(rival["trials"])
    middle = np.median(mine)
    text = f"> {TRIALS}" if middle > TRIALS else f"{middle:.0f}"
    many = min(len(mine), len(theirs))
    if name == RIVAL or not (mine[:many] - theirs[:many]).any():
        return text
    p = float(wilcoxon(mine[:many], theirs[:many]).pvalue)
    return f"{text} (p {p:.1g})"


def held_out(tables: Sequence[Table]) -> Iterator[str]:
    """How well a model of the other tasks of the same kind ranks a task: Spearman, and the share of its fastest points
    that are among as many of the model's."""
    from scipy.stats import spearmanr

    yield "| task left out | learned from | Spearman | recall of the fastest 2 % in the model's best 10 % |"
    yield "| --- | --- | --- | --- |"
    data = {table.name: _data(table) for table in tables}
    for table in tables:
        rows, losses = data[table.name]
        others = [name for name, (other, _) in data.items() if name != table.name and other.shape[1] == rows.shape[1]]
        if not others:
            continue
        model = Trees()
        model.fit(np.concatenate([data[n][0] for n in others]),
                  np.concatenate([_relative(data[n][1]) for n in others]))
        expected, _ = model.predict(rows)
        fastest = np.argsort(losses)[:max(1, int(TOP * len(losses)))]
        liked = set(np.argsort(expected)[:len(losses) // 10].tolist())
        recall = np.mean([n in liked for n in fastest])
        yield (f"| {table.name} | {', '.join(others)} | {spearmanr(expected, losses).statistic:.2f} | "
               f"{100 * recall:.0f} % |")


def _data(table: Table) -> tuple[Array, Array]:
    points = [(json.loads(text), s) for text, s in table.seconds.items() if s is not None]
    return features_of(table)([p for p, _ in points]), np.array([s for _, s in points])


def _relative(seconds: Array) -> Array:
    return np.asarray(seconds / seconds.min())
