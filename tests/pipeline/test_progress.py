"""What a run shows."""

import io
import threading

import pytest

from pipeline.progress import NullProgress, PlainProgress, RichProgress, duration, make_progress, number_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_are_few_and_hold_the_figures():
    out = io.StringIO()
    progress = PlainProgress(out, every_s=60)
    with progress.stage("grpo"), progress.task("math", total=10, start=4) as task:
        for step in range(5, 11):
            task.advance(step, reward=0.51234, tokens_per_s=830.4)
    lines = out.getvalue().splitlines()
    assert lines[0] == "grpo: begins"
    assert lines[1].startswith("grpo math 5/10  reward 0.512  tokens/s 830  eta ")
    assert lines[2] == "grpo math 10/10  reward 0.512  tokens/s 830"
    assert lines[3].startswith("grpo: done in ")
    assert len(lines) == 4


def test_a_stage_that_fails_is_not_called_done():
    for progress in (PlainProgress(io.StringIO()), RichProgress(Terminal())):
        with pytest.raises(ValueError), progress.stage("base"):
            raise ValueError
        stream = progress._stream if isinstance(progress, PlainProgress) else progress._console.file
        assert "done" not in stream.getvalue()
        assert "✓" not in stream.getvalue()


def test_bars_take_several_tasks_from_threads_and_leave_one_line():
    out = Terminal()
    progress = make_progress(out)
    assert isinstance(progress, RichProgress)

    def work(label: str) -> None:
        with progress.task(label, total=3) as task:
            for _ in range(3):
                task.advance(reward=0.5)

    with progress.stage("specialists"):
        threads = [threading.Thread(target=work, args=(label,)) for label in ("math", "code")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        progress.say("[not markup]")
    assert "✓" in out.getvalue()
    assert "[not markup]" in out.getvalue()


def test_output_that_is_piped_gets_plain_lines():
    assert isinstance(make_progress(io.StringIO()), PlainProgress)


def test_null_progress_takes_everything():
    progress = NullProgress()
    with progress.stage("base"), progress.task("x", total=1) as task:
        task.advance(1, loss=1.0)
        progress.say("")


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.34, "8.3 s"), (125, "2:05 min"), (3725, "1:02:05 h"), (59.99, "60.0 s")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (0.12345, "0.123"), (1234.5, "1234"), ("x", "x"), (1e-6, "1e-06")]
)
def test_numbers(value, text):
    assert number_text(value) == text
