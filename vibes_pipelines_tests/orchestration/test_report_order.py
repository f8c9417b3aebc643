"""In which order one process runs the daily job: nobody waits for a page."""

from collections.abc import Iterator

from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.plan.outputs import StepOutputHandle
from dagster._core.execution.retries import RetryMode

from vibes_pipelines.orchestration.build import build_defs


def steps_in_order(job: str) -> Iterator[str]:
    """The steps as Dagster hands them out one by one, each of which goes well."""
    plan = create_execution_plan(build_defs().resolve_job_def(job))
    with plan.start(RetryMode.DISABLED) as execution:
        while not execution.is_complete and (step := execution.get_next_step()):
            yield step.key
            for output in step.step_outputs:
                execution.mark_step_produced_output(StepOutputHandle(step.key, output.name))
            execution.mark_success(step.key)


def test_what_can_go_goes_before_the_first_page_is_made() -> None:
    order = list(steps_in_order("reconcile_daily"))
    assert order.index("diff_set") < order.index("report__draft") < order.index("report__day")
    for delivery in ("delivery__opt_outs", "delivery__crm_write_back"):
        assert order.index(f"{delivery}.account") < order.index("report__draft")
