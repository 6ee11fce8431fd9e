"""The judge under watch while its rewards are learned from: every so many steps it must know its canaries, and one that
does not is stopped until it does."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.config.schema import JudgeConfig
from rewards.judge.canaries import CanaryReport


class CanaryWatch:
    """Decides step by step whether the judge's rewards count.

    Args:
        run: the run's name in messages: `grpo/mixed`.
        ask: puts the canaries to the judge.
        alarm: gets the step, the alarm in words, and whether it is news.
    """

    def __init__(
        self,
        run: str,
        config: JudgeConfig,
        ask: Callable[[], CanaryReport],
        alarm: Callable[[int, str, bool], None],
    ) -> None:
        self._run, self._config, self._ask, self._alarm = run, config, ask, alarm
        self._asked: int | None = None
        self.stopped: str | None = None
        """Why the judge's rewards do not count now."""

    def look(self, step: int) -> dict[str, float]:
        """Asks where it is time to: at the first step, and at the first in each `canary_every` steps. Gives the metrics
        of the step, empty where nothing was asked."""
        every = self._config.canary_every
        if not every or (self._asked is not None and step // every == self._asked // every):
            return {}
        report = self._ask()
        self._asked = step
        failed = [kind for kind, share in report.shares.items() if share < self._config.canary_min_share]
        before, self.stopped = self.stopped, None
        if failed:
            shares = ", ".join(f"{kind} {report.shares[kind]:.0%}" for kind in failed)
            self.stopped = (
                f"the judge is stopped: it failed its canaries ({shares} right, judge.canary_min_share="
                f"{self._config.canary_min_share:g})"
            )
            wrong = "; ".join(report.failures)
            self._alarm(step, f"{self._run}, step {step}: {self.stopped}: {wrong}", before is None)
        elif before is not None:
            self._alarm(step, f"{self._run}, step {step}: the judge knows its canaries again", True)
        return {f"judge/canary/{kind}": share for kind, share in report.shares.items()} | {
            "judge/stopped": float(bool(failed))
        }
