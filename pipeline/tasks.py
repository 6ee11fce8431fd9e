"""Where a run's tasks come from: the domains' generators, or the user's own data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.config.schema import Config, DomainConfig
from pipeline.data import DataError, load_tasks, modes_of
from pipeline.errors import UsageError
from pipeline.sources import local_path
from rewards.custom import CustomRewardError, load_function
from rewards.judge.canaries import read_canaries
from rollout.records import MODES, Mode, Split, Task
from rollout.seeding import rng_for
from specialists import DOMAINS, get_domain
from specialists.base import Domain
from specialists.corpus import DomainMix, generated_task
from specialists.judge_data import JudgeExample, judge_example
from specialists.own import OwnDomain

HELDOUT_DRAWS = 50
"""Draws per wanted held-out task before the generator counts as exhausted."""


def enabled_domains(config: Config) -> list[str]:
    """Names of the domains that take part, in the configuration's order."""
    return [name for name, domain in config.domains.items() if domain.enabled]


def domain_mixes(config: Config) -> dict[str, DomainMix]:
    """How the built-in domains take part in generated text."""
    return {name: _mix(config.domains[name]) for name in enabled_domains(config) if name in DOMAINS}


def _mix(domain: DomainConfig) -> DomainMix:
    return DomainMix(domain.corpus_share, tuple(domain.levels), tuple(domain.languages))


def find_domain(name: str, config: DomainConfig) -> Domain:
    """A built-in domain, or the stand-in for a domain that consists of the user's data alone."""
    return get_domain(name) if name in DOMAINS else OwnDomain(name, config.kind)


def is_judged(config: Config, name: str) -> bool:
    """Whether the GenRM pays a domain."""
    domain = config.domains[name]
    return find_domain(name, domain).kind == "general" and domain.reward is None


def turn_limit(config: Config, name: str) -> int:
    """Tokens that the policy may write in one turn of a domain."""
    return config.domains[name].max_new_tokens or config.sampling.max_new_tokens


class TaskSource:
    """Tasks of one domain.

    Generated tasks are drawn by name (`draw`), own ones are dealt from a list that a seed shuffles each epoch.
    """

    def __init__(self, name: str, config: DomainConfig, seed: int) -> None:
        self.name, self.config, self.seed = name, config, seed
        self._own: dict[Split, list[Task]] = {}

    def training(self, stage: str, step: int, count: int, modes: tuple[Mode, ...] = MODES) -> list[Task]:
        """`count` training tasks of a step, modes in turn: equal arguments, equal tasks."""
        tasks = []
        for number in range(count):
            mode = modes[number % len(modes)]
            if self.config.data is None:
                tasks.append(
                    generated_task(self.name, _mix(self.config), "train", mode, self.seed, stage, step, number)
                )
            else:
                tasks.append(self._dealt(stage, step * count + number, mode, modes))
        return tasks

    def _dealt(self, stage: str, position: int, mode: Mode, modes: tuple[Mode, ...]) -> Task:
        own = self._tasks("train")
        epoch, index = divmod(position, len(own))
        order = list(range(len(own)))
        rng_for(self.seed, stage, self.name, "epoch", epoch).shuffle(order)
        task = own[order[index]]
        return task.in_mode(mode if mode in modes_of(task) else modes_of(task)[0])

    def heldout(self, count: int, mode: Mode) -> list[Task]:
        """Up to `count` distinct held-out tasks in one mode; the same in every mode and for every checkpoint."""
        if self.config.data is not None:
            return [task.in_mode(mode) for task in self._tasks("heldout") if mode in modes_of(task)][:count]
        tasks: dict[str, Task] = {}
        for number in range(count * HELDOUT_DRAWS):
            task = generated_task(self.name, _mix(self.config), "heldout", mode, self.seed, "heldout", number)
            tasks.setdefault(task.id, task)
            if len(tasks) == count:
                break
        return list(tasks.values())

    def _tasks(self, split: Split) -> list[Task]:
        if split not in self._own:
            assert self.config.data is not None
            self._own[split] = load_tasks(self.config.data, self.name, split, self.config.reward is not None)
        return self._own[split]


def task_sources(config: Config) -> Mapping[str, TaskSource]:
    """A source for each enabled domain."""
    return {name: TaskSource(name, config.domains[name], config.seed) for name in enabled_domains(config)}


def check_own(config: Config, splits: Sequence[Split]) -> None:
    """Reads the user's own data files and finds the own reward functions, as the stages will, before the first begins.

    A dataset of the hub is left to the stage that loads it.

    Raises:
        DataError: with every bad row of every file, of the judge's canaries too.
        UsageError: with every reward function that is not there.
    """
    data: list[str] = []
    rewards: list[str] = []
    for name in enabled_domains(config):
        domain = config.domains[name]
        if domain.data is not None and local_path(domain.data.train) is not None:
            for split in splits:
                try:
                    load_tasks(domain.data, name, split, domain.reward is not None)
                except DataError as error:
                    data += error.problems
        if domain.reward is not None:
            try:
                load_function(domain.reward)
            except CustomRewardError as error:
                rewards.append(f"domains.{name}.reward: {error}")
    canaries = config.judge.canaries
    if canaries is not None:
        try:
            read_canaries(canaries)
        except (ValueError, OSError) as error:
            data.append(f"judge.canaries: {error}")
    if data:
        raise DataError(list(dict.fromkeys(data)))
    if rewards:
        raise UsageError("\n".join(rewards))


def judge_lessons(config: Config, split: Split, count: int) -> list[JudgeExample]:
    """What the judge learns from or is measured on: the first `count` of the user's own triples, or generated ones."""
    if config.judge.data is None:
        return generated_lessons(config, split, count)
    from pipeline.own_labels import read_labels

    return read_labels(config.judge.data, split)[:count]


def generated_lessons(config: Config, split: Split, count: int) -> list[JudgeExample]:
    """Lessons of the writing domain's levels and languages: equal arguments, equal lessons."""
    writing = config.domains.get("writing")
    levels = tuple(writing.levels) if writing else (1,)
    languages = tuple(writing.languages) if writing else ("en",)
    start = (0 if split == "train" else 10**9) + config.seed * 10**6
    return [judge_example(start + n, split, levels=levels, languages=languages) for n in range(count)]
