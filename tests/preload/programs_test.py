#!/usr/bin/env python3
"""Real programs on a heap of extmem, by `extmem run`, with their own checks of a right result.

Usage: EXTMEM=… EXTMEM_PROGRAMS=… EXTMEM_SOURCE=. tests/preload/programs_test.py [CLASS...]
"""
import hashlib
import os
import random
import signal
import socket
import subprocess
import time

from preload_case import Case, SOURCE, main


class Python(Case):
    def test_json_re_hashlib_multiprocessing(self):
        program = """
import hashlib, json, multiprocessing, re, threading
def work(n):
    text = json.dumps([{"n": i, "words": [str(j) for j in range(i % 20)]} for i in range(n)])
    again = json.dumps(json.loads(text))
    return hashlib.sha256(again.encode()).hexdigest(), len(re.findall(r'"(\\\\d+)"', again))
if __name__ == "__main__":
    here = [work(n) for n in (10, 1000, 20000)]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(work, (10, 1000, 20000)) == here
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(abs, range(-100, 0)) == list(range(100, 0, -1))
    results = []
    threads = [threading.Thread(target=lambda: results.append(work(5000))) for _ in range(4)]
    [t.start() for t in threads]; [t.join() for t in threads]
    assert len(set(results)) == 1 and len(results) == 4
    print(json.dumps(here))
"""
        script = self.folder / "work.py"
        script.write_text(program)
        plain = subprocess.run(["python3", script], stdout=subprocess.PIPE, check=True, env=self.environment).stdout
        for options in ([], ["--backing", "thp"], *self.shared_backings()):
            self.assertEqual(self.run_on_heap("python3", script, options=options).stdout, plain)


class Sqlite(Case):
    def test_integrity_after_a_million_rows(self):
        self.need("sqlite3")
        sql = b"""create table t(a integer primary key, b text, c blob);
            with recursive r(x) as (values(1) union all select x+1 from r where x<1000000)
              insert into t select x, 'row ' || x, zeroblob(x % 50) from r;
            create index i on t(b);
            delete from t where a % 7 = 0;
            update t set b = b || ' changed' where a % 5 = 0;
            vacuum;
            select count(*), sum(length(b)), sum(length(c)) from t;
            pragma integrity_check;"""
        done = self.run_on_heap("sqlite3", "test.db", input=sql)
        rows, verdict = done.stdout.decode().split()
        n = [x for x in range(1, 1000001) if x % 7]
        expected = (len(n), sum(len(f"row {x}") + (8 if x % 5 == 0 else 0) for x in n), sum(x % 50 for x in n))
        self.assertEqual(tuple(map(int, rows.split("|"))), expected)
        self.assertEqual(verdict, "ok")


class Redis(Case):
    def ask(self, *words):
        done = subprocess.run(["redis-cli", "-p", str(self.port), *words], stdout=subprocess.PIPE, check=True, timeout=120)
        return done.stdout.decode().strip()

    def tell(self, commands):
        subprocess.run(["redis-cli", "-p", str(self.port)], input="\n".join(commands).encode(), stdout=subprocess.DEVNULL,
                       check=True, timeout=120)

    def start(self, options=()):
        return self.start_server("redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--dir",
                                 self.folder, "--daemonize", "no", port=self.port, options=options)

    def test_benchmark_and_persistence(self):
        self.need("redis-server", "redis-benchmark", "redis-cli")
        for options in ([], ["--backing", "thp"], *self.shared_backings()):
            with self.subTest(options=options):
                self.port = self.free_port()
                server, stats = self.start(options)
                self.ask("flushall")
                subprocess.run(["redis-benchmark", "-p", str(self.port), "-q", "-n", "5000", "-r", "3000", "-d", "200",
                                "-t", "set,get,lpush,sadd,hset,spop,zadd,mset"], stdout=subprocess.DEVNULL, check=True, timeout=200)
                # A background save while the data changes: what it writes is of the moment of the fork.
                random.seed(7)
                self.tell(f"set key:{i} {'before' * 50}" for i in range(200))
                self.assertIn("Background saving started", self.ask("bgsave"))
                self.tell(f"set key:{i} {'after' * 70}" for i in range(200))
                for _ in range(600):
                    if "rdb_bgsave_in_progress:0" in self.ask("info", "persistence"):
                        break
                    time.sleep(0.05)
                self.assertIn("rdb_last_bgsave_status:ok", self.ask("info", "persistence"))
                keys = int(self.ask("dbsize"))
                self.ask("shutdown", "nosave")
                self.assertEqual(server.wait(timeout=60), 0)
                server, stats = self.start(options)
                while "LOADING" in self.ask("ping"):
                    time.sleep(0.05)
                self.assertEqual(int(self.ask("dbsize")), keys)
                for i in range(0, 200, 17):
                    self.assertEqual(self.ask("get", f"key:{i}"), "before" * 50)
                digest = self.ask("debug", "digest") if "ERR" not in self.ask("debug", "digest") else None
                self.assertEqual(self.ask("save"), "OK")
                if digest:
                    self.assertEqual(self.ask("debug", "reload"), "OK")
                    self.assertEqual(self.ask("debug", "digest"), digest)
                self.stop_server(server, stats)


class Gcc(Case):
    def test_compiles_a_part_of_extmem(self):
        sources = ["src/alloc/page_space.cpp", "src/alloc/core_small.cpp", "src/region/iova_table.cpp"]
        command = ["g++", "-std=c++20", "-O2", "-I", str(SOURCE / "src"), "-I", str(SOURCE / "include"), "-c"]
        for source in sources:
            plain, ours = self.folder / "plain.o", self.folder / "ours.o"
            subprocess.run([*command, str(SOURCE / source), "-o", str(plain)], check=True, env=self.environment)
            self.run_on_heap(*command, SOURCE / source, "-o", ours)
            self.assertEqual(plain.read_bytes(), ours.read_bytes(), source)


class Git(Case):
    def test_a_history(self):
        self.need("git")
        self.environment.update(GIT_AUTHOR_NAME="a", GIT_AUTHOR_EMAIL="a@b", GIT_COMMITTER_NAME="a", GIT_COMMITTER_EMAIL="a@b",
                                GIT_CONFIG_NOSYSTEM="1", HOME=str(self.folder))
        git = lambda *arguments: self.run_on_heap("git", "-C", "tree", *arguments).stdout.decode()
        self.run_on_heap("git", "init", "-q", "tree")
        tree = self.folder / "tree"
        for commit in range(5):
            for i in range(60):
                (tree / f"file{i}").write_text("".join(f"{commit if line % 9 == 0 else 0} line {line * i}\n" for line in range(200)))
            git("add", ".")
            git("commit", "-q", "-m", f"commit {commit}")
        git("repack", "-adf", "--depth=50", "--window=50")
        git("gc", "-q", "--prune=now")
        self.assertNotIn("error", git("fsck", "--full", "--strict"))
        self.assertEqual(len(git("log", "--oneline").splitlines()), 5)
        self.assertIn("200", git("blame", "-s", "file3").splitlines()[-1].split(")")[0])


class Perl(Case):
    def test_hashes_and_sorting(self):
        self.need("perl")
        program = ('my %h; for my $i (1..200000) { $h{"key$i"} = [$i, "x" x ($i % 50)] } '
                   'my $s = 0; $s += $_->[0] * length $_->[1] for values %h; '
                   'my @k = sort { $a cmp $b } keys %h; delete @h{@k[0..99999]}; print "$s $k[0] $k[-1] ", scalar keys %h')
        expected = f"{sum(i * (i % 50) for i in range(1, 200001))} key1 key99999 100000"
        self.assertEqual(self.run_on_heap("perl", "-e", program).stdout.decode(), expected)


class Node(Case):
    def test_buffers_maps_workers(self):
        self.need("node")
        program = """
const { Worker, isMainThread, parentPort } = require('worker_threads');
const crypto = require('crypto');
function work(n) {
  const m = new Map(); let h = crypto.createHash('sha256');
  for (let i = 0; i < n; i++) { const b = Buffer.alloc(i % 5000, i & 255); m.set(i, b); h.update(b); if (i > 500) m.delete(i - 500); }
  return h.digest('hex');
}
if (isMainThread) {
  const expected = work(20000); let left = 3;
  for (let i = 0; i < 3; i++) new Worker(__filename).on('message', r => {
    if (r !== expected) process.exit(1);
    if (--left === 0) console.log(expected);
  });
} else parentPort.postMessage(work(20000));
"""
        script = self.folder / "work.js"
        script.write_text(program)
        plain = subprocess.run(["node", script], stdout=subprocess.PIPE, check=True, env=self.environment).stdout
        self.assertEqual(self.run_on_heap("node", script).stdout, plain)


class Memcached(Case):
    def test_what_is_set_is_got(self):
        self.need("memcached")
        port = self.free_port()
        server, stats = self.start_server("memcached", "-l", "127.0.0.1", "-p", port, "-m", "128", "-u", "root", "-t", "3", port=port)
        with socket.create_connection(("127.0.0.1", port)) as s:
            stream = s.makefile("rwb")
            for i in range(20000):
                value = hashlib.md5(str(i).encode()).hexdigest().encode() * (i % 60 + 1)
                stream.write(b"set k%d 0 0 %d noreply\r\n%s\r\n" % (i, len(value), value))
            stream.flush()
            for i in range(0, 20000, 37):
                stream.write(b"get k%d\r\n" % i)
                stream.flush()
                self.assertTrue(stream.readline().startswith(b"VALUE"))
                self.assertEqual(stream.readline().strip(), hashlib.md5(str(i).encode()).hexdigest().encode() * (i % 60 + 1))
                self.assertEqual(stream.readline(), b"END\r\n")
        self.stop_server(server, stats)


class Nginx(Case):
    def test_serves_files(self):
        self.need("nginx")
        port = self.free_port()
        content = random.Random(5).randbytes(300000)
        (self.folder / "html").mkdir()
        (self.folder / "logs").mkdir()
        (self.folder / "html" / "data").write_bytes(content)
        configuration = self.folder / "nginx.conf"
        configuration.write_text(f"""user root; daemon off; worker_processes 2; pid {self.folder}/pid; error_log {self.folder}/logs/error.log;
            events {{ worker_connections 128; }}
            http {{ access_log off; gzip on; gzip_types *; client_body_temp_path {self.folder}/body; proxy_temp_path {self.folder}/proxy;
              fastcgi_temp_path {self.folder}/fastcgi; uwsgi_temp_path {self.folder}/uwsgi; scgi_temp_path {self.folder}/scgi;
              server {{ listen 127.0.0.1:{port}; root {self.folder}/html; }} }}""")
        os.chmod(self.folder, 0o755)
        server, stats = self.start_server("nginx", "-p", self.folder, "-c", configuration, port=port)
        import gzip
        import urllib.request
        for i in range(60):
            headers = {"Accept-Encoding": "gzip"} if i % 2 else {}
            with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/data", headers=headers)) as answer:
                body = answer.read()
                self.assertEqual(gzip.decompress(body) if answer.headers.get("Content-Encoding") == "gzip" else body, content)
        server.send_signal(signal.SIGHUP)  # new workers
        time.sleep(0.5)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data") as answer:
            self.assertEqual(answer.read(), content)
        self.stop_server(server, stats, signal.SIGQUIT)


class StressNg(Case):
    def test_the_malloc_stressor(self):
        self.need("stress-ng")
        done = self.run_on_heap("stress-ng", "--malloc", "2", "--malloc-ops", "5000", "--malloc-pthreads", "2",
                                "--malloc-bytes", "64M", "--verify", "--timeout", "60")
        self.assertIn("successful run completed", done.stdout.decode() + done.stderr)


if __name__ == "__main__":
    main()
