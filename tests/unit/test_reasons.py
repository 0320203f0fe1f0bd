from todo_api.operations import _PROBLEMS
from todo_worker.fold import Reason


def test_every_reason_of_the_worker_has_a_problem_in_the_api() -> None:
    assert set(_PROBLEMS) == {str(reason) for reason in Reason}
