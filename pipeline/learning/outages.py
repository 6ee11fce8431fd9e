"""What becomes of rewards that nobody could determine: their samples are masked, an alarm names the culprit, and an
outage that lasts ends the run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from pipeline.config.schema import RewardsConfig
from pipeline.errors import StageError
from rollout.records import Group

MAX_REASON_CHARS = 300
_QUOTED = re.compile(r"""(?<=\s)(?:'[^']*'?|"[^"]*"?)""")
"""What a reason quotes differs from sample to sample; reasons that differ in nothing else are one."""


class OutageWatch:
    """Looks at the rewards of each step of one RL run.

    Args:
        run: the run's name in messages: `grpo/mixed`.
        alarm: gets the step, the domain, the alarm in words, and whether it is news: the first of an outage is, what
            follows it step by step is not.
    """

    def __init__(self, run: str, limits: RewardsConfig, alarm: Callable[[int, str, str, bool], None]) -> None:
        self._run, self._limits, self._alarm = run, limits, alarm
        self._ailing: set[str] = set()
        self._silent: Counter[str] = Counter()

    def look(self, step: int, groups: Sequence[Group]) -> None:
        """Raises an alarm for each domain with invalid rewards.

        Raises:
            StageError: when more than `max_invalid_share` of the step's rewards are invalid, or when a domain had no
                valid one in `max_silent_steps` steps in a row.
        """
        reasons: dict[str, Counter[str]] = {}
        examples: dict[str, str] = {}
        totals: Counter[str] = Counter()
        for group in groups:
            domain = group.task.domain
            found = reasons.setdefault(domain, Counter())
            totals[domain] += len(group.rewards)
            for reward in group.rewards:
                if not reward.valid:
                    reason = (reward.invalid_reason or "")[:MAX_REASON_CHARS]
                    found[examples.setdefault(_QUOTED.sub("…", reason), reason)] += 1
        for domain, found in reasons.items():
            self._look_at(step, domain, found, totals[domain])
        self._refuse_share(step, reasons, totals.total())
        self._refuse_silence(step, reasons)

    def _look_at(self, step: int, domain: str, found: Counter[str], total: int) -> None:
        invalid = found.total()
        self._silent[domain] = self._silent[domain] + 1 if invalid == total else 0
        if not invalid:
            if domain in self._ailing:
                self._ailing.remove(domain)
                self._alarm(step, domain, f"{self._run}, step {step}: all rewards of {domain} are valid again", True)
            return
        (culprit, times), *_ = found.most_common(1)
        text = (
            f"{self._run}, step {step}: {invalid} of {total} rewards of {domain} are invalid and masked; "
            f"most often ({times} times): {culprit}"
        )
        self._alarm(step, domain, text, domain not in self._ailing)
        self._ailing.add(domain)

    def _refuse_share(self, step: int, reasons: dict[str, Counter[str]], total: int) -> None:
        invalid = sum(found.total() for found in reasons.values())
        if not total or invalid / total <= self._limits.max_invalid_share:
            return
        named = {f"{domain}: {why}": count for domain, found in reasons.items() for why, count in found.items()}
        culprit, times = max(named.items(), key=lambda item: item[1])
        raise StageError(
            f"{self._run}, step {step}: {invalid} of {total} rewards are invalid, more than "
            f"rewards.max_invalid_share={self._limits.max_invalid_share:g}; most often ({times} times): {culprit}"
        )

    def _refuse_silence(self, step: int, reasons: dict[str, Counter[str]]) -> None:
        for domain, found in reasons.items():
            if self._silent[domain] >= self._limits.max_silent_steps:
                culprit = found.most_common(1)[0][0]
                raise StageError(
                    f"{self._run}, step {step}: no reward of {domain} was valid in {self._silent[domain]} steps in a "
                    f"row (rewards.max_silent_steps={self._limits.max_silent_steps}); last: {culprit}"
                )
