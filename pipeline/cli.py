"""The command line, `pipeline`. It imports neither torch nor ray; a command imports what it runs."""

from __future__ import annotations

import typer

from pipeline.commands import auditing, configuring, judging, looking, running, serving, using
from pipeline.quiet import set_environment

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Polymath: train specialists, distil them into one model, and finish it with one mixed GRPO stage.",
    epilog="New here? `pipeline doctor` looks at the machine, `pipeline run all --preset smoke` runs every stage in "
    "minutes.\n\nExit codes: 0 ok, 1 an audit found something, 2 usage, 3 resources, 4 a stage failed, 130 "
    "interrupted.",
)
app.command(epilog="For example: pipeline run all --preset smoke, or pipeline run grpo grpo.steps=10.")(running.run)
app.command()(running.plan)
app.command()(looking.status)
app.command("list")(looking.list_runs)
app.add_typer(configuring.app, name="config")
app.command()(looking.doctor)
app.command(
    epilog="For example: pipeline audit-rewards --area math, or pipeline audit-rewards --reward my_rewards:brevity."
)(auditing.audit_rewards)
app.command()(judging.judge_report)
app.command(
    epilog="For example: pipeline rubrics --data prompts.jsonl --out tasks.jsonl judge.base_url=http://host:8000/v1 "
    "judge.model=NAME. The result is a file for domains.NAME.data.train of a domain with kind: general."
)(judging.rubrics)
app.command()(serving.sandbox_server)
app.command()(using.export)
app.command(epilog="For example: pipeline chat specialists/math --mode direct -p 'What is 2 + 2?'")(using.chat)


def main() -> None:
    """Entry point of the console scripts."""
    set_environment()
    app(prog_name="pipeline")


if __name__ == "__main__":
    main()
