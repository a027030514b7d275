#!/usr/bin/env python3
"""Tests of the completion scripts, in the shells themselves.

Usage: EXTMEM=build/dev/bin/extmem EXTMEM_HOLDER=build/dev/bin/cli_holder EXTMEM_VERSION=0.1.0 EXTMEM_SOURCE=. tests/cli/completion_test.py [CLASS...]
"""
import os
import shutil
import subprocess
import unittest

from shell_case import EXTMEM, ShellCase, Terminal


class Completion(ShellCase):
    def commands(self):
        """Each command's words, as --help tells them."""
        def listed(*path):
            text, names, on = self.extmem(*path, "--help").stdout, [], False
            for line in text.splitlines():
                on = line.startswith("Subcommands:") or (on and line.startswith("  "))
                if on and line.startswith("  ") and not line.startswith("   "):
                    names.append(line.split()[0])
            return names
        for name in listed():
            inner = listed(name)
            yield (name,)
            for word in inner:
                yield (name, word)

    def test_scripts_name_every_command_and_option(self):
        scripts = {shell: self.extmem("completion", shell).stdout for shell in ("bash", "zsh", "fish")}
        seen = 0
        for path in self.commands():
            help_text = self.extmem(*path, "--help").stdout
            for word in set(help_text.replace(",", " ").replace("=", " ").split()):
                if not word.startswith("--") or len(word) < 4 or not word[2:].replace("-", "").isalnum():
                    continue
                if word not in self.options_of(path):
                    continue
                seen += 1
                self.assertIn(word, scripts["bash"], path)
                self.assertIn(word, scripts["zsh"], path)
                self.assertIn(f" -l {word[2:]} ", scripts["fish"] + " ", path)
            self.assertIn(path[-1], scripts["bash"])
        self.assertGreater(seen, 60)
        self.extmem("completion", "tcsh", status=2)

    def options_of(self, path):
        """The options that the help text lists (a footer may name those of others)."""
        names = set()
        for line in self.extmem(*path, "--help").stdout.splitlines():
            if line.startswith("  -"):
                names.update(w.rstrip(",") for w in line.replace(",", " ").replace("{", " ").split() if w.startswith("--"))
        return names

    def bash(self, line):
        words = line.split(" ")
        script = self.extmem("completion", "bash").stdout + '\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _extmem; printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", script, "bash", *words], env={**self.environment, "PATH": f"{os.path.dirname(EXTMEM)}:{self.environment['PATH']}"},
                              cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    def test_bash_completes(self):
        self.extmem("domain", "create", "alpha")
        self.extmem("domain", "create", "beta")
        (self.folder / "picture.svg").write_text("")
        for line, wanted in (("extmem do", ["doctor", "domain"]), ("extmem heap ", ["create", "destroy"]), ("extmem heap create --st", ["--style"]),
                             ("extmem heap create --style ", ["binned", "exact"]), ("extmem ls ", ["alpha", "beta"]),
                             ("extmem region add al", ["alpha"]), ("extmem region add alpha ", []),
                             ("extmem demo --svg pic", ["picture.svg"]), ("extmem top --sort ch", ["change"]), ("extmem nonsense --j", [])):
            with self.subTest(line=line):
                got = [w for w in self.bash(line) if not w.startswith("--") or line.endswith("--st")]
                self.assertEqual(sorted(got), sorted(wanted))
        self.assertIn("--json", self.bash("extmem ls -"))

    def test_fish_completes(self):
        if not shutil.which("fish"):
            self.skipTest("fish is not installed")
        self.extmem("domain", "create", "alpha")
        script = self.folder / "extmem.fish"
        script.write_text(self.extmem("completion", "fish").stdout)
        for line, wanted in (("extmem do", {"doctor", "domain"}), ("extmem heap ", {"create", "destroy"}), ("extmem heap create --style ", {"binned", "exact"}),
                             ("extmem ls ", {"alpha"})):
            with self.subTest(line=line):
                done = subprocess.run(["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      env={**self.environment, "HOME": str(self.folder), "PATH": f"{os.path.dirname(EXTMEM)}:{self.environment['PATH']}"}, timeout=120, check=False)
                self.assertEqual(done.stderr, "")
                self.assertEqual({text.split("\t")[0] for text in done.stdout.splitlines() if not text.startswith("-")}, wanted)

    def test_zsh_completes(self):
        if not shutil.which("zsh"):
            self.skipTest("zsh is not installed")
        self.extmem("domain", "create", "alpha")
        folder = self.folder / "functions"
        folder.mkdir()
        (folder / "_extmem").write_text(self.extmem("completion", "zsh").stdout)
        environment = {**self.environment, "HOME": str(self.folder), "TERM": "xterm", "PATH": f"{os.path.dirname(EXTMEM)}:{self.environment['PATH']}"}
        (self.folder / ".zshrc").write_text(f"fpath=({folder} $fpath)\nautoload -U compinit\ncompinit -u -D\nPS1='READY> '\nsetopt no_beep\nLISTMAX=0\n")
        zsh = Terminal(["-i"], environment, self.folder, program=shutil.which("zsh"))
        zsh.wait_for("READY>")
        zsh.press("extmem heap create --sty\t")
        zsh.wait_for("--style")
        zsh.press("ex\t")
        zsh.wait_for("exact")
        zsh.press("\x15extmem doct\t")
        zsh.wait_for("doctor")
        zsh.press("\x15extmem ls al\t")
        zsh.wait_for("alpha")
        zsh.press("\x15exit\r")
        self.assertEqual(zsh.end(), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
