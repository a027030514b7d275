#!/usr/bin/env python3
"""tools/test_summary counts what ctest wrote, and lets no failure or silent skip through."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

SUMMARY = pathlib.Path(__file__).resolve().parents[2] / "tools" / "test_summary"

PASSED = '<testcase name="a" status="run"><system-out>fine</system-out></testcase>'
FAILED = '<testcase name="b" time="1.25" status="fail"><failure message=""/><system-out>{}</system-out></testcase>'
NOT_BUILT = '<testcase name="c" status="notrun"><skipped message="Unable to find executable"/></testcase>'
DISABLED = '<testcase name="d" status="disabled"><skipped message="Disabled"/></testcase>'
SKIPPED = (
    '<testcase name="e" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>'
    "<system-out>file.cpp:3: Skipped\n{}\n[  SKIPPED ] X.Y</system-out></testcase>"
)


class TestSummary(unittest.TestCase):
    def summary(self, *cases, status=0, more=(), log=None):
        """What test_summary says of a stage with these test cases: exit status and lines."""
        with tempfile.TemporaryDirectory() as folder:
            if log is not None:
                pathlib.Path(folder, "ctest.log").write_text(log)
            file = pathlib.Path(folder, "junit.xml")
            file.write_text("<testsuite>" + "".join(cases) + "</testsuite>")
            done = subprocess.run(
                [sys.executable, SUMMARY, f"dev={file}@{status}", *more], capture_output=True, text=True, check=False
            )
            return done.returncode, done.stdout.splitlines()

    def test_the_last_line_adds_up(self):
        skipped = SKIPPED.format("needs hugepages")
        self.assertEqual(self.summary(PASSED, PASSED, skipped)[1][-1], "2 passed, 0 failed, 1 skipped")
        self.assertEqual(self.summary(PASSED, skipped)[0], 0)
        status, lines = self.summary(PASSED, FAILED.format("x"), skipped, status=8, more=["asan:does not build"])
        self.assertEqual((status, lines[-1]), (1, "1 passed, 2 failed, 1 skipped"))
        self.assertIn("FAILED  asan: build: does not build", lines)
        self.assertIn("FAILED  dev: b: failed, after 1.2 s", lines)

    def test_a_skip_says_why_or_it_is_a_failure(self):
        self.assertIn("SKIPPED  dev: e: needs hugepages", self.summary(SKIPPED.format("needs hugepages"))[1])
        self.assertEqual(self.summary(SKIPPED.format("not today"))[1][-1], "0 passed, 1 failed, 0 skipped")

    def test_what_did_not_run_failed(self):
        self.assertEqual(self.summary(NOT_BUILT, DISABLED)[1][-1], "0 passed, 2 failed, 0 skipped")

    def test_no_tests_no_results_and_a_bad_exit_are_failures(self):
        self.assertEqual(self.summary()[1][-1], "0 passed, 1 failed, 0 skipped")
        self.assertEqual(self.summary(PASSED, status=8)[1][-1], "1 passed, 1 failed, 0 skipped")
        self.assertEqual(self.summary(PASSED, more=["tsan=/nowhere@0"])[1][-1], "1 passed, 1 failed, 0 skipped")

    def shown(self, output, tests=1):
        """The lines of a failed test's output that the summary shows."""
        return [line[4:] for line in self.summary(*[FAILED.format(output)] * tests)[1] if line.startswith("    ")]

    def test_how_a_test_failed_comes_from_ctests_log(self):
        log = "The following tests FAILED:\n\t  7 - b (SEGFAULT)\n\t 12 - Suite/X.Y/0  # GetParam() = (1, 2) (Timeout)\n"
        self.assertIn("FAILED  dev: b: SEGFAULT, after 1.2 s", self.summary(FAILED.format("x"), log=log)[1])
        other = FAILED.replace('"b"', '"Suite/X.Y/0  # GetParam() = (1, 2)"').format("x")
        self.assertIn("FAILED  dev: Suite/X.Y/0  # GetParam() = (1, 2): Timeout, after 1.2 s", self.summary(other, log=log)[1])

    def test_the_output_is_shown_from_the_line_that_tells_what_failed(self):
        for telling in ("/x/y_test.cpp:30: Failure", "WARNING: ThreadSanitizer: data race (pid=1)",
                        "==7==ERROR: AddressSanitizer: heap-use-after-free", "x.cpp:3:5: runtime error: shift exponent",
                        "unit: x.cpp:7: f: Assertion `a' failed.", "FAIL: test_x (__main__.X)",
                        "Traceback (most recent call last):", "terminate called without an active exception"):
            self.assertEqual(self.shown(f"noise\n\n{telling}\n\nmore\n"), [telling, "more"])

    def test_output_that_tells_nothing_is_shown_from_its_end(self):
        self.assertEqual(self.shown("\n".join(f"line {n}" for n in range(100))), [f"line {n}" for n in range(75, 100)])
        self.assertEqual(self.shown(""), [])

    def test_long_outputs_are_cut(self):
        shown = self.shown("noise\nx:1: Failure\n" + "again\n" * 100)
        self.assertEqual((len(shown), shown[0], shown[-1]), (26, "x:1: Failure", "(76 lines more)"))
        self.assertLess(len(self.shown("x:1: Failure\n" + "y" * 10000)[1]), 500)
        self.assertLess(len(self.shown("line\n" * 100, tests=100)), 310)


if __name__ == "__main__":
    unittest.main()
