"""What the tests of the shell's view share: a runtime directory of their own, a process that holds memory, a terminal, and the
check of JSON against docs/cli-json.md."""
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import fcntl
import subprocess
import tempfile
import termios
import time
import unittest

EXTMEM = os.environ["EXTMEM"]
HOLDER = os.environ["EXTMEM_HOLDER"]
SOURCE = pathlib.Path(os.environ["EXTMEM_SOURCE"])
MIB = 1 << 20


def documented():
    """docs/cli-json.md: command -> {member: type}."""
    tables, current = {}, None
    for line in (SOURCE / "docs" / "cli-json.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            current = tables.setdefault(line[3:].strip(), {})
        elif found := re.match(r"\| `([^`]+)` \| (string|integer|number|boolean) \|", line):
            current[found[1]] = found[2]
    return tables


def members(value, path=""):
    """The leaves of a document: (path, type)."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from members(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from members(inner, path + "[]")
    else:
        yield path, ("boolean" if isinstance(value, bool) else "integer" if isinstance(value, int)
                     else "number" if isinstance(value, float) else "string")


class Holder:
    """A process of a domain."""

    def __init__(self, environment):
        self.process = subprocess.Popen([HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.pid = self.process.pid

    def tell(self, *words):
        line = b"\t".join(w if isinstance(w, bytes) else str(w).encode() for w in words)
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().decode().strip()
        assert answer == "ok", f"{words}: {answer}"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            if not self.process.stdin.closed:
                self.process.stdin.close()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process.stdout.close()


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, arguments, environment, cwd, size=(24, 100), program=EXTMEM):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            os.chdir(cwd)
            os.execve(program, [program, *arguments], environment)
        self.text = ""
        self.status = None

    def read(self, seconds=0.2):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], left)[0]:
                break
            try:
                chunk = os.read(self.fd, 65536)
            except OSError:
                chunk = b""
            if not chunk:
                break
            self.text += chunk.decode("utf-8", "replace")
        return self.text

    def wait_for(self, pattern, seconds=60, redraw=False):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if redraw:
                os.write(self.fd, b"\x0c")  # curses sends only what changed
            if re.search(pattern, plain(self.read())):
                return
        raise AssertionError(f"never saw {pattern!r} in:\n{plain(self.text)[-4000:]}")

    def press(self, keys):
        self.text = ""
        os.write(self.fd, keys.encode())

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def end(self, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.read(0.2)
                os.close(self.fd)
                return self.status
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"it does not end:\n{plain(self.text)[-2000:]}")


def plain(text):
    """What a terminal was sent, without what steers it."""
    text = re.sub(r"\x1b\][^\x07]*\x07", "", text)
    return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z@]|[()][A-Z0-9]|[=>78MDE])", " ", text)


class ShellCase(unittest.TestCase):
    SCHEMAS = documented()

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="extmem-shell-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.runtime = pathlib.Path(tempfile.mkdtemp(prefix="extmem-shell-", dir="/dev/shm"))
        self.addCleanup(shutil.rmtree, self.runtime, ignore_errors=True)
        self.environment = {key: value for key, value in os.environ.items()
                            if key in ("PATH", "HOME", "ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS")}
        self.environment |= {"LC_ALL": "C.UTF-8", "EXTMEM_RUNTIME_DIR": str(self.runtime)}

    def extmem(self, *arguments, status=0, environment=None, **options):
        done = subprocess.run([options.pop("program", EXTMEM), *arguments], cwd=options.pop("cwd", self.folder), timeout=240,
                              env={**self.environment, **(environment or {})}, stdout=subprocess.PIPE, check=False,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **options)
        done.stdout, done.stderr = done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "surrogateescape")
        if status is not None:
            self.assertEqual(done.returncode, status, f"{arguments}\n{done.stdout}\n{done.stderr}")
        return done

    def json(self, *arguments, status=0, **options):
        """The document that a command writes, checked against docs/cli-json.md."""
        return self.check_document(json.loads(self.extmem(*arguments, "--json", status=status, **options).stdout))

    def check_document(self, data):
        schema = self.SCHEMAS["Errors" if "error" in data else data["command"]]
        for path, kind in members(data):
            self.assertIn(path, schema, f"{data['command']}: docs/cli-json.md lists no {path}")
            wanted = schema[path]
            self.assertTrue(kind == wanted or (wanted == "number" and kind == "integer"), f"{path} is {kind}, not {wanted}")
        data["seen"] = {path for path, _ in members(data)}
        return data

    def error(self, *arguments, status, to_stderr=False, exact=True, **options):
        """The document of a failure, which standard error tells, too; `exact`: in the command's own form."""
        done = self.extmem(*arguments, status=status, **options)
        if to_stderr:
            self.assertEqual(done.stdout, "")
            at = done.stderr.index("{")
            lines, data = done.stderr[:at], json.JSONDecoder().raw_decode(done.stderr[at:])[0]
        else:
            lines, data = done.stderr, json.loads(done.stdout)
        self.check_document(data)
        self.assertEqual(set(data), {"command", "schema", "error", "seen"})
        self.assertEqual(data["error"]["exit_code"], status)
        words = f"extmem: {data['command']}{': ' if data['command'] else ''}{data['error']['message']}"
        self.assertIn(words if exact else data["error"]["message"], lines)
        return data

    def holder(self, *commands):
        made = Holder(self.environment)
        self.addCleanup(made.close)
        for words in commands:
            made.tell(*words)
        return made

    def preloads(self):
        """Whether this build has what `run` and `record` preload: sanitizers have a malloc of their own."""
        return (pathlib.Path(EXTMEM).parent.parent / "lib" / "libextmem-preload.so").exists()

    def furnished(self):
        """A domain with a heap of everything, held by a process."""
        return self.holder(("open", "dom"), ("heap", "packets"), ("region", "packets", 8 * MIB, "identity"),
                           ("alloc", "packets", "rx-ring", 2048, 100), ("alloc", "packets", "", 100, 50),
                           ("alloc", "packets", "big", MIB, 1), ("zone", "packets", "journal", 65536))

    def terminal(self, *arguments, environment=None, size=(24, 100)):
        return Terminal(arguments, {**self.environment, "TERM": "xterm-256color", **(environment or {})}, self.folder, size)
