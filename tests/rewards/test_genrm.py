import json
import time
from email.utils import formatdate

import pytest

from rewards.judge.client import GenRMClient, JudgeRequest
from rewards.judge.prompt import INSTRUCTED_TEMPLATE
from rewards.judge.reply import response_format
from rewards.rubric import Criterion
from tests.rewards.scripted_judge import Judge, reply

POLITE = Criterion("polite", "The answer is polite.")


MET, NOT_MET = reply(True, "Please"), reply(False)


def ask(script, answer="Please sit.", votes=1, criteria=(POLITE,), **more):
    with Judge(script) as judge:
        client = GenRMClient(judge.url, "judge", **{"timeout": 2.0, "votes": votes, **more})
        result = client.judge_many([JudgeRequest("Ask him to sit.", answer, criteria)])[0]
        client.close()
    return result, judge


def test_votes_are_drawn_with_different_seeds_and_counted():
    result, judge = ask(lambda number, _: MET if number else NOT_MET, votes=3)
    assert result.score == 1.0 and sorted(result.criteria[0].votes) == [False, True, True]
    assert sorted(body["seed"] for body in judge.bodies) == [0, 1, 2]


def test_programmatic_criteria_and_empty_answers_ask_nobody():
    short = Criterion("short", "At most three words.", check={"kind": "max_words", "count": 3})
    result, judge = ask(lambda *_: MET, criteria=(short,))
    assert result.score == 1.0 and not judge.prompts
    result, judge = ask(lambda *_: MET, answer=" ")
    assert result.score == 0.0 and not judge.prompts


def test_a_server_that_stumbles_is_asked_again():
    result, judge = ask(lambda number, _: (503, "busy", 0) if number < 2 else MET)
    assert result.score == 1.0 and len(judge.prompts) == 3


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(lambda: "1", 0.9), (lambda: formatdate(time.time() + 3, usegmt=True), 0.9), (lambda: "in a while", 0.0)],
)
def test_a_server_that_asks_for_time_gets_it(header, seconds):
    asked = []

    def script(number, _):
        asked.append(time.monotonic())
        return MET if number else (429, "slowly", 0, {"Retry-After": header()})

    result, _ = ask(script)
    assert result.score == 1.0 and len(asked) == 2 and asked[1] - asked[0] >= seconds


def test_who_asks_for_more_time_than_there_is_is_not_waited_for():
    started = time.monotonic()
    with Judge(lambda *_: (429, "slowly", 0, {"Retry-After": "60"})) as judge:
        client = GenRMClient(judge.url, "judge", votes=1, deadline=20.0)
        result = client.judge_many([JudgeRequest("q", "Please sit.", (POLITE,))])[0]
        client.close()
    assert result.score is None and "HTTP 429" in result.invalid_reason and "deadline of 20 s" in result.invalid_reason
    assert len(judge.prompts) == 1 and time.monotonic() - started < 15
    assert (client.usage.requests, client.usage.retries, client.usage.failures) == (1, 0, 1)


@pytest.mark.parametrize(
    ("script", "reason", "tries"),
    [
        (lambda *_: (500, "boom", 0), "HTTP 500", 2),
        (lambda *_: (404, "no such model", 0), "HTTP 404", 1),
        (lambda *_: (200, "not json", 0), "no chat completion", 1),
        (lambda *_: (200, '{"choices": []}', 0), "no chat completion", 1),
        (lambda *_: (200, '{"choices": [{"message": {"content": null}}]}', 0), "no text", 1),
        (lambda *_: "10/10, wonderful", "not the JSON", 1),
        (lambda *_: reply(True, "thank you"), "evidence is not in the answer", 1),
        (lambda *_: (200, "{" * 2_000_000, 0), "longer than", 1),
        (lambda *_: (200, "{}", 1.0), "Timeout", 2),
    ],
)
def test_a_judge_that_fails_is_invalid_with_the_reason(script, reason, tries):
    result, judge = ask(script, max_retries=1, timeout=0.5)
    assert result.score is None and reason in result.invalid_reason
    assert len(judge.prompts) == tries


def test_nobody_listens():
    client = GenRMClient("http://127.0.0.1:9", "judge", max_retries=0, votes=1)
    result = client.judge_many([JudgeRequest("q", "a", (POLITE,))])[0]
    assert result.score is None and "ConnectError" in result.invalid_reason


def test_the_deadline_holds_for_the_whole_call():
    started = time.monotonic()
    result, _ = ask(lambda *_: (200, "{}", 2.0), deadline=0.4, timeout=5.0, votes=2)
    assert result.score is None and "deadline" in result.invalid_reason
    assert time.monotonic() - started < 4


def test_order_is_kept_under_concurrency():
    def script(_, prompt):
        time.sleep(0.05 if "even" in prompt else 0)
        return reply(True, "even") if "even" in prompt else NOT_MET

    with Judge(script) as judge:
        client = GenRMClient(judge.url + "/v1", "judge", votes=1, concurrency=4)
        requests = [JudgeRequest("q", f"{'even' if i % 2 == 0 else 'odd'} {i}", (POLITE,)) for i in range(12)]
        assert [result.score for result in client.judge_many(requests)] == [1.0, 0.0] * 6


def test_the_cache_knows_what_a_verdict_depends_on(tmp_path):
    path = tmp_path / "judge.sqlite"
    with Judge(lambda *_: reply(True, "word")) as judge:
        rude = Criterion("polite", "The answer is rude.")
        for expected, criterion, answer in [
            (1, POLITE, "a word"),
            (1, POLITE, "a word"),
            (2, POLITE, "b word"),
            (3, rude, "a word"),
        ]:
            client = GenRMClient(judge.url, "judge", votes=1, cache=path)
            assert client.judge_many([JudgeRequest("q", answer, (criterion,))])[0].score == 1.0
            client.close()
            assert len(judge.prompts) == expected


def test_abstentions_are_not_cached():
    with Judge(lambda number, _: reply(True, "a") if number else "hm") as judge:
        client = GenRMClient(judge.url, "judge", votes=1)
        request = [JudgeRequest("q", "a", (POLITE,))]
        assert [client.judge_many(request)[0].score for _ in range(2)] == [None, 1.0]


def test_a_fresh_judgement_passes_the_cache_by():
    with Judge(lambda number, _: reply(number == 0, "a")) as judge:
        client = GenRMClient(judge.url, "judge", votes=1)
        request = [JudgeRequest("q", "a", (POLITE,))]
        assert client.judge_many(request)[0].score == 1.0
        assert client.judge_many(request)[0].score == 1.0
        assert client.judge_many(request, fresh=True)[0].score == 0.0


def test_a_cache_file_without_room_costs_no_verdict(tmp_path):
    client_file = tmp_path / "judge.sqlite"
    with Judge(lambda *_: MET) as judge:
        client = GenRMClient(judge.url, "judge", votes=1, cache=client_file)
        client.cache._file.execute("PRAGMA query_only = ON")
        assert client.judge_many([JudgeRequest("q", "Please sit.", (POLITE,))])[0].score == 1.0
        client.close()


TWO = (POLITE, Criterion("warm", "The answer is warm."), Criterion("bad", "It is rude.", importance="pitfall"))


def test_several_criteria_in_one_call_are_shuffled_and_put_back_in_order():
    """The scripted judge finds a criterion met unless its text says rude, wherever it stands."""

    def script(_, prompt):
        texts = [line.partition(". ")[2] for line in prompt.splitlines() if line[:2] in ("1.", "2.", "3.")]
        return json.dumps({
            str(n): {"reason": text, "evidence": "Please", "met": "rude" not in text} for n, text in enumerate(texts, 1)
        })  # fmt: skip

    result, judge = ask(script, votes=9, criteria=TWO, criteria_per_call=3, template=INSTRUCTED_TEMPLATE)
    assert result.score == 1.0 and result.passed and len(judge.prompts) == 9
    assert [(r.name, r.met, r.reason) for r in result.criteria] == [
        ("polite", True, "The answer is polite."),
        ("warm", True, "The answer is warm."),
        ("bad", False, "It is rude."),
    ]
    assert len({tuple(prompt.index(c.text) for c in TWO) for prompt in judge.prompts}) > 1


def test_a_partial_reply_gives_no_verdict_on_any_of_its_criteria():
    one = reply(True, "Please")
    result, _ = ask(lambda *_: f'{{"1": {one}}}', criteria=TWO, criteria_per_call=3)
    assert result.score is None and [r.met for r in result.criteria] == [None] * 3


def test_a_pitfall_that_the_judge_finds_costs():
    result, _ = ask(lambda _, prompt: reply(True, "Please"), criteria=(TWO[0], TWO[2]))
    assert result.score == pytest.approx(0.1) and not result.passed


@pytest.mark.parametrize("guided", [False, True])
def test_guided_decoding_is_asked_for_where_configured(guided):
    _, judge = ask(lambda *_: MET, guided=guided)
    assert judge.bodies[0].get("response_format") == (response_format(1) if guided else None)


def test_usage_counts_tokens_requests_and_retries():
    body = {"choices": [{"message": {"content": MET}}], "usage": {"prompt_tokens": 40, "completion_tokens": 9}}
    with Judge(lambda number, _: (503, "busy", 0) if number == 0 else (200, json.dumps(body), 0)) as judge:
        client = GenRMClient(judge.url, "judge", votes=3)
        assert client.judge_many([JudgeRequest("q", "Please sit.", (POLITE,))])[0].score == 1.0
        usage = client.usage
        assert (usage.requests, usage.retries, usage.failures) == (4, 1, 0)
        assert (usage.prompt_tokens, usage.completion_tokens) == (120, 27) and usage.seconds > 0


@pytest.mark.parametrize("answer", [".", ":", "\u200b", " \u3164\n", "…", "<|im_end|>"])
def test_an_answer_without_a_word_is_not_put_to_the_judge(answer):
    result, judge = ask(lambda *_: MET, answer=answer)
    assert result.score == 0.0 and not judge.prompts


def test_answers_that_no_wire_can_carry_are_judged_all_the_same():
    result, _ = ask(lambda *_: MET, answer="Please \ud800 sit \x00 down.")
    assert result.score == 1.0


def test_a_task_that_has_no_rubric_is_invalid_and_takes_nobody_along():
    with Judge(lambda *_: MET) as judge:
        client = GenRMClient(judge.url, "judge", votes=1)
        requests = [JudgeRequest("q", "Please", ()), JudgeRequest("q", "Please", (POLITE,))]
        first, second = client.judge_many(requests)
        assert first.score is None and "at least one criterion" in first.invalid_reason and second.score == 1.0
