import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.extract import FormatError, Thinking, boxed_answer, code_block, split_thinking


def name(result):
    return result.name if isinstance(result, FormatError) else result


def test_thinking_mode_is_cut_at_the_one_end():
    assert split_thinking("two and two</think>\\boxed{4}", "thinking") == Thinking(
        "two and two", "\\boxed{4}"
    )


@pytest.mark.parametrize(
    ("completion", "mode", "finished", "error"),
    [
        ("never ends", "thinking", True, "truncated"),
        ("a</think>b", "thinking", False, "truncated"),
        ("a</think>b</think>c", "thinking", True, "several_think_ends"),
        ("<think>a</think>b", "thinking", True, "stray_think_open"),
        ("  </think>b", "thinking", True, "empty_thinking"),
        ("a</think>b", "direct", True, "think_in_direct_mode"),
        ("<think>a", "direct", True, "stray_think_open"),
        ("b", "direct", False, "truncated"),
    ],
)
def test_format_errors(completion, mode, finished, error):
    assert name(split_thinking(completion, mode, finished)) == error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{4}.", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\}}", r"\}"),
        ("I have no idea, 7", "no_answer"),
        (r"\boxed{0} \boxed{1} \boxed{2}", "several_answers"),
        (r"\boxed{" * 10_000, "several_answers"),
        (r"\boxed{1", "unbalanced_braces"),
        (r"\boxed 5", "unbalanced_braces"),
        (r"\boxed{ }", "empty_answer"),
        (r"\boxed{" + "9" * 201 + "}", "answer_too_long"),
        (r"\boxed{" + "{" * 10_000 + "}" * 10_000 + "}", "answer_too_long"),
        ("#### 7", "no_answer"),
        (r"\boxed {4}", "4"),
        # The box ends the answer; the rest of its sentence may follow, another answer may not.
        (r"She has $\boxed{7}$ apples left.", "7"),
        (r"\[ x = \boxed{7} \]", "7"),
        (r"**\boxed{7}**", "7"),
        (r"\boxed{90}^\circ.", "90"),
        (r"\boxed{5}\text{ cm}", "5"),
        (r"\begin{align} x &= \boxed{7} \end{align}", "7"),
        (r"答案是\boxed{7}。", "7"),
        (r"共有\boxed{7}个苹果。", "7"),
        (r"\boxed{7}" + "\n" * 500, "7"),
        (r"\boxed{7}. No, it is 8.", "text_after_answer"),
        (r"\boxed{7} or 8", "text_after_answer"),
        (r"\boxed{7} or eight", "text_after_answer"),
        (r"\boxed{7}. Wait, that is wrong.", "text_after_answer"),
        (r"\boxed{7} is not the answer", "text_after_answer"),
        (r"\boxed{7}，不对，是八。", "text_after_answer"),
        (r"\boxed{7}^2", "text_after_answer"),
        (r"\boxed{7}\%", "text_after_answer"),
        (r"\boxed{7} million", "text_after_answer"),
        (r"\boxed{7}x", "text_after_answer"),
        (r"\boxed{7} k", "text_after_answer"),
        (r"\boxed{7}\text{ m}", "7"),
        (r"\boxed{7} = \frac{14}{2}", "text_after_answer"),
        (r"\boxed{7}" + " and so on and on" * 30, "text_after_answer"),
        ("\\boxed{7}\u200b8", "text_after_answer"),
    ],
)
def test_boxed(text, expected):
    assert name(boxed_answer(text)) == expected


def test_a_box_in_the_thinking_is_no_answer():
    thinking = split_thinking(r"\boxed{3}</think> I do not know", "thinking")
    assert isinstance(thinking, Thinking)
    assert name(boxed_answer(thinking.answer_text)) == "no_answer"


@given(st.text(max_size=200))
def test_no_text_breaks_extraction(text):
    for result in (split_thinking(text, "thinking"), split_thinking(text, "direct"), boxed_answer(text)):
        assert isinstance(result, Thinking | FormatError | str)
    assert isinstance(code_block(text), str | FormatError)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Here:\n```python\nprint(1)\n```\n", "print(1)\n"),
        ("print(1)", "no_answer"),
        ("```python\nprint(1)", "unclosed_block"),
        ("```\nprint(1)\n```", "wrong_language"),
        ("```python\n\n```", "empty_answer"),
        ("```python\na\n```\n```python\nb\n```", "several_answers"),
        ("```python\na\n```python\n", "unclosed_block"),
    ],
)
def test_code_block(text, expected):
    assert name(code_block(text)) == expected
