#!/usr/bin/env python3
"""tools/lint_layers finds each kind of breach, at its line, and is silent about a tree that has none."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

LINT = pathlib.Path(__file__).resolve().parents[2] / "tools" / "lint_layers"

GOOD = {
    "src/LAYERS": "# who may include whom\nbase:\nos: base\nalloc: base\nfaces/c: alloc\n",
    "src/base/bits.hpp": "#include <bit>\n",
    "src/os/file.hpp": '#include "base/bits.hpp"\n#include <fcntl.h>\n',
    "src/alloc/slab.hpp": '#include "alloc/page.hpp"\n#include "base/bits.hpp"\n#include "extmem/types.hpp"\n',
    "src/alloc/page.hpp": "#pragma once\n",
    "src/faces/c/c.cpp": '#include "alloc/slab.hpp"\n#include "extmem/extmem.h"\n',
    "include/extmem/types.hpp": "#include <cstdint>\n",
    "include/extmem/extmem.h": '#include "extmem/types.hpp"\n',
}


class LintLayers(unittest.TestCase):
    def lint(self, changes=()):
        """Writes GOOD with `changes` over it and returns the exit status and what the lint printed."""
        with tempfile.TemporaryDirectory() as root:
            for name, text in {**GOOD, **dict(changes)}.items():
                path = pathlib.Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            done = subprocess.run([sys.executable, LINT, root], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr

    def assert_found(self, changes, where, reason):
        status, output = self.lint(changes)
        self.assertEqual(status, 1, output)
        lines = [line for line in output.splitlines() if line.startswith(where)]
        self.assertEqual(len(lines), 1, output)
        self.assertIn(reason, lines[0])
        self.assertIn("1 finding\n", output)

    def test_a_clean_tree_passes(self):
        self.assertEqual(self.lint(), (0, "lint_layers: 0 findings\n"))

    def test_a_system_call_outside_of_os_and_faces_is_found(self):
        for header in ("fcntl.h", "unistd.h", "sys/stat.h", "linux/futex.h"):
            self.assert_found(
                {"src/alloc/page.hpp": f"#include <cstdint>\n#include <{header}>\n"},
                "src/alloc/page.hpp:2:",
                f"alloc may not include <{header}>; make the system call in src/os",
            )
        self.assertEqual(self.lint({"src/faces/c/c.cpp": "#include <unistd.h>\n"})[0], 0)

    def test_an_include_that_layers_forbids_is_found(self):
        self.assert_found(
            {"src/alloc/page.hpp": '#include <vector>\n#include "os/file.hpp"\n'},
            "src/alloc/page.hpp:2:",
            'alloc may not include "os/file.hpp"',
        )

    def test_permission_does_not_pass_from_layer_to_layer(self):
        self.assert_found({"src/faces/c/c.cpp": '#include "base/bits.hpp"\n'}, "src/faces/c/c.cpp:1:", "faces/c may not")

    def test_a_layer_in_angle_brackets_is_no_way_round(self):
        self.assert_found({"src/alloc/page.hpp": "#include <os/file.hpp>\n"}, "src/alloc/page.hpp:1:", "may not include")

    def test_a_path_relative_to_the_file_is_found(self):
        self.assert_found({"src/alloc/slab.hpp": '#include "page.hpp"\n'}, "src/alloc/slab.hpp:1:", "relative to src/")
        self.assert_found({"src/alloc/slab.hpp": '#include "../os/file.hpp"\n'}, "src/alloc/slab.hpp:1:", "relative to src/")

    def test_a_missing_file_is_found(self):
        self.assert_found({"src/os/file.hpp": '#include "base/none.hpp"\n'}, "src/os/file.hpp:1:", "does not exist")

    def test_a_folder_that_is_no_layer_is_found(self):
        self.assert_found({"src/util/misc.hpp": "#pragma once\n"}, "src/util/misc.hpp:1:", "in no layer")

    def test_a_public_header_that_includes_src_is_found(self):
        self.assert_found(
            {"include/extmem/types.hpp": '#include "base/bits.hpp"\n'}, "include/extmem/types.hpp:1:", "public header"
        )

    def test_a_long_file_is_found(self):
        self.assertEqual(self.lint({"src/os/file.hpp": "\n" * 500})[0], 0)
        self.assert_found({"src/os/file.hpp": "\n" * 501}, "src/os/file.hpp:501:", "500 lines")

    def test_a_marker_is_found(self):
        for marker in ("TO" "DO", "FIX" "ME", "X" "XX", "HA" "CK"):
            self.assert_found({"src/os/file.hpp": f"\n// {marker}: later\n"}, "src/os/file.hpp:2:", marker)

    def test_a_layer_above_its_own_dependencies_is_refused(self):
        status, output = self.lint({"src/LAYERS": "base: os\nos:\n"})
        self.assertEqual(status, 1)
        self.assertIn("os must stand above base", output)


if __name__ == "__main__":
    unittest.main()
