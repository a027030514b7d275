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

    def names(self):
        """Domains with heaps and regions to complete, here and in another runtime directory; the test's own names."""
        for name in ("alpha", "beta"):
            self.extmem("domain", "create", name)
        self.extmem("heap", "create", "alpha", "packets")
        self.extmem("heap", "create", "beta", "frames")
        for _ in range(2):
            self.extmem("region", "add", "alpha", "packets", "--size", "1M")
        # Names that a shell would do something with are not offered, and nothing of them is run.
        evil = f"$(touch {self.folder}/evil)"
        self.extmem("heap", "create", "alpha", "--", evil[:60])
        self.extmem("heap", "create", "alpha", "--", "-x")
        self.elsewhere = self.runtime / "elsewhere"
        self.extmem("domain", "create", "gamma", "--directory", str(self.elsewhere))
        self.extmem("heap", "create", "gamma", "cells", "--directory", str(self.elsewhere))
        # Heaps that a domain has from the start.
        self.nodes = {h["heap"] for h in self.json("ls", "alpha")["domains"][0]["heaps"] if h["heap"].startswith("node")}

    def wanted(self):
        """Lines, and the names that complete their last word."""
        there = str(self.elsewhere)
        return (("extmem heap destroy alpha ", {"packets"} | self.nodes), ("extmem heap destroy beta fr", {"frames"}), ("extmem stat alpha pa", {"packets"}),
                ("extmem region add alpha pack", {"packets"}), ("extmem region remove alpha ", {"1", "2"}), ("extmem region drain alpha ", {"1", "2"}),
                ("extmem map alpha --heap pa", {"packets"}), ("extmem zones --heap fr", set()), ("extmem zones beta --heap fr", {"frames"}),
                ("extmem run --domain al", {"alpha"}), ("extmem run --domain alpha --heap pa", {"packets"}), ("extmem stat nope ", set()),
                (f"extmem ls --directory {there} ", {"gamma"}), (f"extmem stat --directory {there} gamma ce", {"cells"}),
                (f"extmem stat --directory={there} gamma ce", {"cells"}), ("extmem ls alpha be", {"beta"}), ("extmem heap create alpha ", set()),
                ("extmem domain create al", set()))

    def bash(self, line):
        words = [w for part in line.split(" ") for w in (part.partition("=") if "=" in part else (part,))]  # as COMP_WORDBREAKS has it
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
                             ("extmem region add al", ["alpha"]), ("extmem region add alpha ", ["node0"]),
                             ("extmem demo --svg pic", ["picture.svg"]), ("extmem top --sort ch", ["change"]), ("extmem nonsense --j", [])):
            with self.subTest(line=line):
                got = [w for w in self.bash(line) if not w.startswith("--") or line.endswith("--st")]
                self.assertEqual(sorted(got), sorted(wanted))
        self.assertIn("--json", self.bash("extmem ls -"))

    def test_bash_completes_what_domains_have(self):
        self.names()
        for line, wanted in self.wanted():
            with self.subTest(line=line):
                self.assertEqual({w for w in self.bash(line) if not w.startswith("--")}, wanted)
        (self.folder / "picture.svg").write_text("")
        self.assertEqual(self.bash("extmem demo --svg=pic"), ["picture.svg"])
        self.assertEqual(self.bash("extmem replay pic"), ["picture.svg"])
        self.assertIn("perl", self.bash("extmem record -- per"))
        self.assertFalse((self.folder / "evil").exists())

    def fish(self, line):
        script = self.folder / "extmem.fish"
        if not script.exists():
            script.write_text(self.extmem("completion", "fish").stdout)
        done = subprocess.run(["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env={**self.environment, "HOME": str(self.folder), "PATH": f"{os.path.dirname(EXTMEM)}:{self.environment['PATH']}"}, timeout=120, check=False)
        self.assertEqual(done.stderr, "")
        return {text.split("\t")[0] for text in done.stdout.splitlines() if not text.startswith("-")}

    def test_fish_completes_what_domains_have(self):
        if not shutil.which("fish"):
            self.skipTest("needs fish: it is not installed")
        self.names()
        for line, wanted in self.wanted():
            with self.subTest(line=line):
                self.assertEqual(self.fish(line), wanted)
        self.assertFalse((self.folder / "evil").exists())

    def test_fish_completes(self):
        if not shutil.which("fish"):
            self.skipTest("needs fish: it is not installed")
        self.extmem("domain", "create", "alpha")
        for line, wanted in (("extmem do", {"doctor", "domain"}), ("extmem heap ", {"create", "destroy"}), ("extmem heap create --style ", {"binned", "exact"}),
                             ("extmem ls ", {"alpha"})):
            with self.subTest(line=line):
                self.assertEqual(self.fish(line), wanted)

    def zsh(self):
        if not shutil.which("zsh"):
            self.skipTest("needs zsh: it is not installed")
        folder = self.folder / "functions"
        folder.mkdir()
        (folder / "_extmem").write_text(self.extmem("completion", "zsh").stdout)
        environment = {**self.environment, "HOME": str(self.folder), "TERM": "xterm", "PATH": f"{os.path.dirname(EXTMEM)}:{self.environment['PATH']}"}
        (self.folder / ".zshrc").write_text(f"fpath=({folder} $fpath)\nautoload -U compinit\ncompinit -u -D\nPS1='READY> '\nsetopt no_beep\nLISTMAX=0\n")
        zsh = Terminal(["-i"], environment, self.folder, program=shutil.which("zsh"))
        zsh.wait_for("READY>")
        return zsh

    def test_zsh_completes_what_domains_have(self):
        self.names()
        zsh = self.zsh()
        for line, wanted in self.wanted():
            with self.subTest(line=line):
                if len(wanted) == 1:  # it is put into the line
                    zsh.press(f"\x15{line}\t")
                    zsh.wait_for(f"{line.rpartition(' ')[0]} *{next(iter(wanted))} ")
                elif wanted:  # they are listed, with their descriptions
                    zsh.press(f"\x15{line}\t")
                    for name in wanted:
                        zsh.wait_for(f"{name} +(\\d +)*-- ")  # one description for several that have the same
        zsh.press("\x15exit\r")
        self.assertEqual(zsh.end(), 0)
        self.assertFalse((self.folder / "evil").exists())

    def test_zsh_completes(self):
        self.extmem("domain", "create", "alpha")
        zsh = self.zsh()
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
