#!/usr/bin/env python3
"""Tests of the command `extmem`: what it prints, writes and answers.

Usage: EXTMEM=build/dev/bin/extmem EXTMEM_VERSION=0.1.0 EXTMEM_SOURCE=. tests/cli/cli_test.py [CLASS...]
"""
import json
import os
import pathlib
import pty
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

EXTMEM = os.environ["EXTMEM"]
SOURCE = pathlib.Path(os.environ["EXTMEM_SOURCE"])
SHORT = ["--seconds", "0.3"]
ESCAPE = "\x1b["


class Case(unittest.TestCase):
    """A folder of its own for each test, and a plain environment."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="extmem-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.environment = {key: value for key, value in os.environ.items()
                            if key in ("PATH", "HOME", "ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS")}
        self.environment["LC_ALL"] = "C.UTF-8"

    def run_extmem(self, *arguments, status=0, environment=None, **options):
        done = subprocess.run([options.pop("program", EXTMEM), *arguments], cwd=options.pop("cwd", self.folder), text=True, encoding="utf-8",
                              env={**self.environment, **(environment or {})}, timeout=240,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        self.assertEqual(done.returncode, status, f"{arguments}\n{done.stdout}\n{done.stderr}")
        return done

    def check_picture(self, path):
        root = ElementTree.parse(path).getroot()
        self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
        text = pathlib.Path(path).read_text(encoding="utf-8")
        self.assertNotIn("href", text)
        self.assertNotIn("<script", text)
        for word in ("packets", "storage", "control", "device", "rx-ring", "frame-batch"):
            self.assertIn(word, text)
        self.assertLess(len(text), 2 << 20)


class Version(Case):
    def test_prints_the_version(self):
        done = self.run_extmem("version")
        self.assertEqual(done.stdout, f"extmem {os.environ['EXTMEM_VERSION']}\n")
        self.assertEqual(done.stderr, "")
        self.assertEqual(self.run_extmem("--version").stdout, done.stdout)


class Usage(Case):
    def test_help_documents_commands_options_and_exit_codes(self):
        text = self.run_extmem("--help").stdout
        for word in ("demo", "version", "ls", "stat", "top", "map", "zones", "verify", "recover", "domain", "heap", "region", "doctor", "Exit codes", "NO_COLOR"):
            self.assertIn(word, text)
        text = self.run_extmem("demo", "--help").stdout
        for option in ("--seconds", "--threads", "--svg", "--json", "--no-color"):
            self.assertIn(option, text)

    def test_nonsense_ends_with_2_and_says_what_to_do(self):
        for arguments in ([], ["dmeo"], ["--nothing"], ["demo", "--seconds"], ["demo", "--seconds", "soon"],
                          ["demo", "--seconds", "-1"], ["demo", "--seconds", "0"], ["demo", "--threads", "0"],
                          ["demo", "--threads", "100000"], ["demo", "extra"], ["version", "extra"], ["domain"], ["heap", "crate"], ["ls", "--nothing"]):
            with self.subTest(arguments=arguments):
                done = self.run_extmem(*arguments, status=2)
                self.assertEqual(done.stdout, "")
                self.assertRegex(done.stderr, r"^extmem: .+\nTry: extmem")
        self.assertIn("no such command: dmeo", self.run_extmem("dmeo", status=2).stderr)
        self.assertIn("no such command: heap crate", self.run_extmem("heap", "crate", status=2).stderr)
        self.assertIn("a command comes first, before --nothing", self.run_extmem("--nothing", status=2).stderr)
        self.assertIn("subcommand is required", self.run_extmem("heap", status=2).stderr)
        self.assertIn("Try: extmem heap create --help", self.run_extmem("heap", "create", status=2).stderr)

    def test_a_full_disk_is_an_error(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("this machine has no /dev/full")
        with open("/dev/full", "w", encoding="utf-8") as full:
            for arguments in (["version"], ["--version"], ["--help"], ["ls", "--help"]):
                done = subprocess.run([EXTMEM, *arguments], stdout=full, stderr=subprocess.PIPE, env=self.environment,
                                      text=True, timeout=60, check=False)
                self.assertEqual(done.returncode, 3, arguments)
                self.assertIn("No space left", done.stderr, arguments)


class Demo(Case):
    def test_passes_and_reports(self):
        picture = self.folder / "map.svg"
        done = self.run_extmem("demo", *SHORT, "--threads", "3", "--svg", str(picture))
        self.assertEqual(done.stderr, "", "nothing but errors and progress goes to standard error")
        for heading in ("Machine", "Memory", "Memzones", "Load", "Heaps", "Tags", "Processes", "Timings", "Checks", "Result"):
            self.assertRegex(done.stdout, rf"(?m)^{heading}$")
        self.assertIn(str(picture), done.stdout)
        self.assertNotIn(ESCAPE, done.stdout)
        self.assertNotIn("\r", done.stdout)
        self.check_picture(picture)

    def test_reports_as_json(self):
        done = self.run_extmem("demo", *SHORT, "--threads", "3", "--json", "--svg", "map.svg")
        self.assertEqual(done.stderr, "")
        self.check_picture(self.folder / "map.svg")
        data = json.loads(done.stdout)
        self.assertTrue(data["passed"])
        self.assertEqual(data["version"], os.environ["EXTMEM_VERSION"])
        self.assertEqual([c for c in data["checks"] if not c["ok"]], [])
        self.assertGreater(len(data["checks"]), 30)
        self.assertEqual(data["load"]["threads"], 3)
        self.assertGreater(data["load"]["operations"], 1000)
        self.assertEqual(data["load"]["faults"], 0)
        self.assertEqual({r["heap"] for r in data["regions"]}, {"packets", "storage", "control", "device"})
        self.assertEqual({z["name"] for z in data["memzones"]}, {"rx-ring", "tx-buffers", "dma-32", "journal"})
        names = {c["name"] for c in data["checks"]}
        for name in ("drain a region under load", "free it a second time", "free a foreign pointer",
                     "live bytes and counts of every tag are exact", "verify after the load"):
            self.assertIn(name, names)

    def test_leaves_no_temporary_file_behind(self):
        temporary = self.folder / "tmp"
        temporary.mkdir()
        self.run_extmem("demo", *SHORT, environment={"TMPDIR": str(temporary)})
        self.assertEqual(list(temporary.iterdir()), [])


class DemoFiles(Case):
    def test_the_picture_goes_to_out_by_default(self):
        done = self.run_extmem("demo", *SHORT)
        self.assertIn("out/extmem-demo.svg", done.stdout)
        self.check_picture(self.folder / "out" / "extmem-demo.svg")

    def test_a_file_that_cannot_be_written_ends_with_3_before_the_load(self):
        done = self.run_extmem("demo", "--seconds", "60", "--svg", "/nowhere/at/all", status=3)
        self.assertIn("/nowhere/at/all", done.stderr)
        self.assertIn("No such file", done.stderr)

    def test_no_place_for_temporary_files_ends_with_3(self):
        done = self.run_extmem("demo", *SHORT, status=3, environment={"TMPDIR": "/proc"})
        self.assertIn("TMPDIR", done.stderr)


class DemoUnprivileged(Case):
    """As nobody, who has no group and no capability; where the tests do not run as root, as whoever runs them."""

    def setUp(self):
        super().setUp()
        self.nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        self.folder.chmod(0o777)
        # Nobody may not be let into the folder of the build: a copy, with the library beside it.
        self.program = self.folder / "bin" / "extmem"
        self.program.parent.mkdir()
        shutil.copy2(EXTMEM, self.program)
        for library in (pathlib.Path(EXTMEM).parent.parent / "lib").glob("libextmem.so*"):
            shutil.copy2(library, self.program.parent, follow_symlinks=False)
        self.program.parent.chmod(0o755)
        self.environment["LD_LIBRARY_PATH"] = str(self.program.parent)

    def run_extmem(self, *arguments, status=0, environment=None, **options):
        return super().run_extmem(*arguments, status=status, environment=environment, **self.nobody, **options,
                                  program=str(self.program))

    def test_works_without_privilege_and_says_what_it_did_instead(self):
        data = json.loads(self.run_extmem("demo", *SHORT, "--json").stdout)
        self.assertTrue(data["passed"])
        if not data["machine"]["physical_addresses"]:
            self.assertTrue(any("sudo extmem demo" in note for note in data["notes"]), data["notes"])
            self.assertEqual({r["iova"] for r in data["regions"]}, {"identity", "given table"})
        if self.nobody:
            self.assertFalse(data["machine"]["physical_addresses"])

    def test_a_folder_that_cannot_be_written_to(self):
        temporary = self.folder / "tmp"
        temporary.mkdir()
        temporary.chmod(0o777)
        done = self.run_extmem("demo", *SHORT, environment={"TMPDIR": str(temporary)}, cwd="/sys")
        self.assertIn("cannot be written to", done.stdout)
        self.assertEqual([p.suffix for p in temporary.iterdir()], [".svg"])

    def test_almost_no_memory_may_be_locked(self):
        limits = lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))  # noqa: E731
        self.run_extmem("demo", *SHORT, preexec_fn=limits)


class Colours(Case):
    def on_a_terminal(self, *arguments, environment=None):
        """What the command writes to a terminal: its standard output and standard error."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.folder)
            os.execve(EXTMEM, [EXTMEM, *arguments], {**self.environment, "TERM": "xterm", **(environment or {})})
        output = b""
        try:
            while chunk := os.read(terminal, 65536):
                output += chunk
        except OSError:  # the other end closed
            pass
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
        text = output.decode("utf-8")
        self.assertEqual(os.waitstatus_to_exitcode(status), 0, text)
        return text

    def without_progress(self, text):
        return re.sub(r"\r\x1b\[K[^\r\n]*", "", text)

    def test_a_terminal_gets_colours_and_a_progress_bar(self):
        text = self.on_a_terminal("demo", *SHORT)
        self.assertIn(ESCAPE + "38;5;", text, "the map")
        self.assertIn(ESCAPE + "1m", text, "headings")
        self.assertIn("million operations/s", text)

    def test_no_color_in_the_environment_or_as_an_option(self):
        for arguments, environment in ((["--no-color"], {}), ([], {"NO_COLOR": "1"})):
            text = self.on_a_terminal("demo", *SHORT, *arguments, environment=environment)
            self.assertNotIn(ESCAPE, self.without_progress(text))
        text = self.on_a_terminal("demo", *SHORT, environment={"TERM": "dumb"})
        self.assertNotIn(ESCAPE, text)

    def test_ascii_where_the_locale_is_not_utf8(self):
        text = self.run_extmem("demo", *SHORT, environment={"LC_ALL": "C"}).stdout
        self.assertTrue(text.isascii(), [c for c in text if ord(c) > 127])


class ManPage(Case):
    def test_names_every_option_and_exit_code(self):
        page = (SOURCE / "docs" / "man" / "extmem.1.scd").read_text(encoding="utf-8")
        commands = [["demo"], ["run"], ["record"], ["replay"], ["advise"], ["doctor"], ["ls"], ["stat"], ["top"], ["zones"], ["map"], ["verify"], ["recover"], ["completion"], ["version"],
                    *(["domain", c] for c in ("create", "rm")), *(["heap", c] for c in ("create", "destroy")),
                    *(["region", c] for c in ("add", "drain", "undrain", "remove"))]
        for command in commands:
            self.assertRegex(page, rf"\*{command[0]}\*|extmem\* [a-z |]*{command[0]}")
            for option in re.findall(r"--[a-z-]+", self.run_extmem(*command, "--help").stdout):
                self.assertIn(f"*{option}*", page, command)
        for code in re.findall(r"(?m)^  (\d)  ", self.run_extmem("--help").stdout):
            self.assertRegex(page, rf"(?m)^\*{code}\*$")


if __name__ == "__main__":
    unittest.main(verbosity=2)
