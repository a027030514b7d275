#!/usr/bin/env python3
"""tools/test_summary counts what ctest wrote, and lets no failure or silent skip through."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

SUMMARY = pathlib.Path(__file__).resolve().parents[2] / "tools" / "test_summary"

PASSED = '<testcase name="a" status="run"><system-out>fine</system-out></testcase>'
FAILED = '<testcase name="b" status="fail"><failure message="Timeout"/><system-out>x</system-out></testcase>'
NOT_BUILT = '<testcase name="c" status="notrun"><skipped message="Unable to find executable"/></testcase>'
DISABLED = '<testcase name="d" status="disabled"><skipped message="Disabled"/></testcase>'
SKIPPED = (
    '<testcase name="e" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>'
    "<system-out>file.cpp:3: Skipped\n{}\n[  SKIPPED ] X.Y</system-out></testcase>"
)


class TestSummary(unittest.TestCase):
    def summary(self, *cases, status=0, more=()):
        """What test_summary says of a stage with these test cases: exit status and lines."""
        with tempfile.TemporaryDirectory() as folder:
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
        status, lines = self.summary(PASSED, FAILED, skipped, status=8, more=["asan:does not build"])
        self.assertEqual((status, lines[-1]), (1, "1 passed, 2 failed, 1 skipped"))
        self.assertIn("FAILED  asan: build: does not build", lines)
        self.assertIn("FAILED  dev: b: Timeout", lines)

    def test_a_skip_says_why_or_it_is_a_failure(self):
        self.assertIn("SKIPPED  dev: e: needs hugepages", self.summary(SKIPPED.format("needs hugepages"))[1])
        self.assertEqual(self.summary(SKIPPED.format("not today"))[1][-1], "0 passed, 1 failed, 0 skipped")

    def test_what_did_not_run_failed(self):
        self.assertEqual(self.summary(NOT_BUILT, DISABLED)[1][-1], "0 passed, 2 failed, 0 skipped")

    def test_no_tests_no_results_and_a_bad_exit_are_failures(self):
        self.assertEqual(self.summary()[1][-1], "0 passed, 1 failed, 0 skipped")
        self.assertEqual(self.summary(PASSED, status=8)[1][-1], "1 passed, 1 failed, 0 skipped")
        self.assertEqual(self.summary(PASSED, more=["tsan=/nowhere@0"])[1][-1], "1 passed, 1 failed, 0 skipped")


if __name__ == "__main__":
    unittest.main()
