"""The rule that keeps `make test` quick, and the line that says how many tests ran."""

from __future__ import annotations

import pytest


def test_a_long_test_without_the_mark_fails_and_the_end_says_how_many_ran(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nmarkers = slow: takes long")
    pytester.makepyfile(
        """
        import time
        import pytest

        def test_quick(): pass
        def test_long(): time.sleep(0.5)
        @pytest.mark.slow
        def test_marked(): time.sleep(0.5)
        """
    )
    with monkeypatch.context() as patched:
        patched.setattr("tests.support.two_speeds.SLOW_SECONDS", 0.01)
        patched.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        everything = pytester.runpytest_inprocess("-p", "tests.support.two_speeds")
        quick = pytester.runpytest_inprocess("-p", "tests.support.two_speeds", "-m", "not slow")
    everything.assert_outcomes(passed=2, failed=1)
    everything.stdout.fnmatch_lines(
        ["*make it faster, or mark it*", "Ran 3 of 3 tests; 0 were skipped*0 were left out*"]
    )
    quick.stdout.fnmatch_lines(["Ran 2 of 3 tests; 0 were skipped*1 were left out*"])
