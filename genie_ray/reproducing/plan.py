"""What a command makes: a table at a scale, its rows for every game and seed, checked before anything starts.

Three checks hold that a row is what its label says: `means`, what stands at places of its recipe; `differs_in`, all in
which it differs from an earlier row; and that the paper's figures beside it exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genie_ray.base.session import RayConfig
from genie_ray.evaluating.published_figures import read_lines
from genie_ray.reproducing.checks import Compared, check_differences, check_label
from genie_ray.reproducing.description import PUBLISHED, PictureText, RowText, ScaleText, TableText, read_table
from genie_ray.reproducing.graph import Graph, Job
from genie_ray.reproducing.scaled import Change, changes

TABLES = Path(__file__).parents[2] / "experiments" / "reproduce"
FIGURES = TABLES.parent / "published" / "figures.csv"
SUFFIX = ".yaml"


@dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """A row of a section, for all seeds.

    Attributes:
        section: its heading; a game's id in a table with `each`, empty if there is one section alone.
        jobs: seed → the evaluation.
        scaled: in what it differs from the published scale.
        paper: the paper's figures, under the keys of an evaluation's rows; None: it has none for this row.
    """

    text: RowText
    section: str
    game: str | None
    jobs: Mapping[int, Job]
    scaled: Sequence[Change]
    paper: Mapping[str, Any] | None

    @property
    def label(self) -> str:
        return self.text.row


@dataclass(frozen=True, kw_only=True)
class PlannedPicture:
    """A picture of a section, of the first seed."""

    text: PictureText
    section: str
    job: Job


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A table at a scale, with everything that it is made of."""

    name: str
    scale: str
    table: TableText
    rows: Sequence[PlannedRow]
    chosen: Sequence[PlannedRow]  # to be made
    pictures: Sequence[PlannedPicture]  # to be made, unless rows are chosen
    seeds: Sequence[int]
    paper_rows: Sequence[Mapping[str, Any]]  # figures of other games than ours
    coverage: Mapping[int, Mapping[str, Job]]  # seed → plays by their names
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)  # set → games of it without a ROM
    ray: RayConfig

    def jobs(self) -> list[Job]:
        """Everything that the chosen rows need, once each, in the order of making: seed after seed, row after row."""
        found: dict[str, Job] = {}
        for seed in self.seeds:
            for row in self.chosen:
                for job in row.jobs[seed].chain():
                    found.setdefault(job.identity, job)
        for picture in self.pictures:
            for job in picture.job.chain():
                found.setdefault(job.identity, job)
        return list(found.values())


def table_file(name: str) -> Path:
    """The file of a table: of the clone's, by name, or any.

    Raises:
        ValueError: there is none.
    """
    if name.endswith(SUFFIX):
        if not Path(name).is_file():
            raise ValueError(f"no such table: {name}")
        return Path(name).resolve()
    if not TABLES.is_dir():
        raise ValueError(
            f"the tables' files are part of a clone, not of the installed package: {TABLES} is not there. Install the "
            f"clone with `pip install -e .`, or give the path of a {SUFFIX} file"
        )
    known = sorted(path.stem for path in TABLES.glob(f"*{SUFFIX}"))
    if name not in known:
        raise ValueError(f"unknown table {name!r}: allowed are {', '.join(known)}, or the path of a {SUFFIX} file")
    return TABLES / f"{name}{SUFFIX}"


def read_plan(
    name: str,
    scale: str,
    *,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    games: Mapping[str, Sequence[str]] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Reads a table and checks it; makes nothing.

    Args:
        only: labels of rows to make, or `SECTION: LABEL`; none: all.
        seeds: instead of the scale's.
        games: sets of games instead of the scale's.
        overrides: settings laid over the file's.

    Raises:
        ValueError: one line; what is unknown, impossible, not installed, or not what a label says.
    """
    file = table_file(name)
    table = read_table(file)
    if scale not in table.scales:
        raise ValueError(f"--scale is {scale!r}: {file.stem} has {', '.join(table.scales)}")
    text = table.scales[scale]
    choice = Choice(overrides or {})
    chosen_games = with_games(text, games or {}, file.stem)
    nominal = Graph(table, table.scales[PUBLISHED], 0, directory=file.parent, games=tuple[str, ...], overrides={})
    graphs = {
        seed: Graph(table, chosen_games, seed, directory=file.parent, games=choice, overrides=overrides or {})
        for seed in (seeds or text.seeds)
    }
    lines = read_lines(str(FIGURES)) if FIGURES.is_file() else []  # which an installed package lacks
    figures = {(line["test_set"], line["model"]): line for line in lines}
    first = next(iter(graphs.values()))
    sections = first.games_of(table.each, None) if table.each is not None else (None,)
    rows, pictures = list[PlannedRow](), list[PlannedPicture]()
    for game in sections:
        for row in table.rows:
            jobs = {seed: graph.shown(row, game) for seed, graph in graphs.items()}
            check_label(row, jobs, table.means)
            scaled = changes(next(iter(jobs.values())).expanded, nominal.shown(row, game).expanded, table)
            rows.append(
                PlannedRow(
                    text=row,
                    section=" · ".join(part for part in (game, row.section) if part),
                    game=game,
                    jobs=jobs,
                    scaled=scaled,
                    paper=paper_figures(row, game, table, figures),
                )
            )
        for text_of in table.pictures:
            job = first.shown(text_of, game)
            check_label(text_of, {0: job}, table.means)
            pictures.append(PlannedPicture(text=text_of, section=game or "", job=job))
    check_differences([Compared(row.text, row.section, row.jobs) for row in rows])
    models = {row.published.get("model") for row in table.rows}
    others = [
        line
        for (test_set, model), line in figures.items()
        if test_set in table.paper_names.values() and model in models
    ]
    return Plan(
        name=file.stem,
        scale=scale,
        table=table,
        rows=rows,
        chosen=choose(rows, only),
        pictures=[] if only else pictures,
        seeds=list(graphs),
        paper_rows=others,
        coverage={seed: {name: graph.job(name, None) for name in table.coverage} for seed, graph in graphs.items()},
        missing={name: left for name, names in chosen_games.games.items() if (left := choice.missing.get(names))},
        ray=first.shown(table.shown[0], sections[0]).config.ray,
    )


class Choice:
    """From ids, queries and selections to installed games; remembers which have no ROM."""

    def __init__(self, overrides: Mapping[str, Any]) -> None:
        from genie_ray.games.catalog import Catalog

        self._catalog = Catalog(overrides.get("catalog", ()))
        self._chosen: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.missing: dict[tuple[str, ...], tuple[str, ...]] = {}

    def __call__(self, names: Sequence[str]) -> tuple[str, ...]:
        """The installed games of these names.

        Raises:
            ValueError: an unknown name, a game that is named and has no ROM, or a selection without any.
        """
        key = tuple(names)
        if key not in self._chosen:
            choice = self._catalog.choose(key)
            if not choice.installed:
                raise ValueError(f"no game of {', '.join(key)} has its ROM here")
            self._chosen[key], self.missing[key] = choice.installed, choice.missing
        return self._chosen[key]


def with_games(scale: ScaleText, games: Mapping[str, Sequence[str]], table: str) -> ScaleText:
    """The scale with other games in some of its sets.

    Raises:
        ValueError: it has no such set.
    """
    for name in games:
        if name not in scale.games:
            raise ValueError(f"--games {name}: {table} has the sets {', '.join(scale.games)}")
    return replace(scale, games=scale.games | {name: tuple(names) for name, names in games.items()})


def choose(rows: Sequence[PlannedRow], only: Sequence[str]) -> list[PlannedRow]:
    """The rows named by label, or by section and label; none named: all.

    Raises:
        ValueError: there is no such row.
    """
    names = {f"{row.section}: {row.label}" if long else row.label for row in rows for long in (False, True)}
    if unknown := [name for name in only if name not in names]:
        known = ", ".join(repr(label) for label in dict.fromkeys(row.label for row in rows))
        raise ValueError(f"--only {unknown[0]!r}: there is no such row; allowed: {known}, each also as 'SECTION: ROW'")
    return [row for row in rows if not only or {row.label, f"{row.section}: {row.label}"} & set(only)]


def paper_figures(
    row: RowText, game: str | None, table: TableText, figures: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The paper's figures for a row: of its own game in a table with `each`, if the paper has it.

    Raises:
        ValueError: figures.csv has no such line.
    """
    if not row.published or table.supplementary:
        return None
    model, test_set = row.published.get("model"), row.published.get("test_set")
    if table.each is not None and game is not None:
        if not any((name, model) in figures for name in table.paper_names.values()):
            raise ValueError(f"published of {row.row!r}: {FIGURES.name} has no model {model!r} of {table.source}")
        test_set = table.paper_names.get(game)
        return None if test_set is None else figures.get((test_set, str(model)))
    if (test_set, model) not in figures:
        raise ValueError(f"published of {row.row!r}: {FIGURES.name} has no {test_set!r}, {model!r}")
    return figures[str(test_set), str(model)]
