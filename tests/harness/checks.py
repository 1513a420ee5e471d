"""Runs checks one after the other and says how each of them went."""

import signal
import sys
import tempfile
import time

END_SIGNALS = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT)


def give_up(number, _frame):
    """Ends the run; further signals must not disturb the cleaning up that follows."""
    for ending in END_SIGNALS:
        signal.signal(ending, signal.SIG_IGN)
    sys.exit(f"given up after {signal.Signals(number).name}")


def end_within(secs):
    """Ends the run when it takes longer, and cleanly when it is told to end."""
    for ending in END_SIGNALS:
        signal.signal(ending, give_up)
    signal.alarm(secs)


def run_checks(stage, checks):
    """Runs all checks in their order, prints a line for each, and returns how many failed.

    A check is a function of the stage; its documentation says what holds. Before each, the stage restores what a failed
    one has left behind.
    """
    failed = 0
    for number, check in enumerate(checks, start=1):
        started = time.monotonic()
        try:
            stage.restore()
            check(stage)
            result, reason = "ok", ""
        except Exception as error:
            failed += 1
            result, reason = "not ok", f"\n# {type(error).__name__}: {error}"
        elapsed = time.monotonic() - started
        print(f"{result} {number} - {check.__doc__} # {elapsed:.1f} s{reason}", flush=True)
    return failed


def run_within(secs, name, make_stage, checks):
    """Runs the checks on a stage in a directory of its own, and gives up after this time; an exit status."""
    end_within(secs)
    with tempfile.TemporaryDirectory(prefix=f"edgepush-{name}-", ignore_cleanup_errors=True) as directory:
        return run_on(make_stage(directory), checks)


def run_on(stage, checks):
    """Runs the checks on a stage, ends it whatever happens, shows its logs if something failed; an exit status."""
    failed = len(checks)
    try:
        failed = run_checks(stage, checks)
    finally:
        stage.close()
        if failed:
            for child in stage.logs:
                child.print_log()
    print(f"{len(checks) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def expect_refusal(answer, status, errno, message=None):
    """Compares an answer with the error that it should be."""
    assert answer.status_code == status, f"answered {answer.status_code} instead of {status}: {answer.text}"
    error = answer.json()
    assert (error["code"], error["errno"]) == (status, errno), f"{error} instead of errno {errno}"
    if message:
        assert error["message"] == message, f"{error['message']!r} instead of {message!r}"
