"""Measures a daemon's footprint over its API; see footprint.sh."""

import concurrent.futures
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

MEGABYTE = 1024 * 1024
PROGRAM_BYTES_MAX = 25 * MEGABYTE
IDLE_BYTES_MAX = 100 * MEGABYTE
READY_SECONDS_MAX = 1.0
# As many requests at a time as let the daemon make one sync of many.
CLIENTS = 32


class Daemon:
    def __init__(self, program, directory):
        self.started = time.monotonic()
        arguments = ["serve", "--data-dir", directory, "--http", "127.0.0.1:0", "--log-format", "json"]
        self.process = subprocess.Popen([program, *arguments], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r'"http":"\[([0-9.]+):(\d+)\]"', line):
                self.host, self.port = found[1], int(found[2])
                break
        else:
            raise SystemExit("the daemon did not start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.local = threading.local()

    def ask(self, method, path, body=None):
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection(self.host, self.port)
        headers = {"content-type": "application/json"} if body is not None else {}
        self.local.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = self.local.connection.getresponse()
        text = response.read()
        return response.status, text

    def must(self, method, path, body):
        status, text = self.ask(method, path, body)
        if status not in (200, 201):
            raise SystemExit(f"{method} {path}: {status} {text}")
        return json.loads(text)

    def until_ready(self):
        while self.ask("GET", "/readyz")[0] != 200:
            time.sleep(0.005)
        return time.monotonic() - self.started

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) * 1024

    def stop(self):
        self.process.terminate()
        if self.process.wait() != 0:
            raise SystemExit("the daemon did not go down in order")


def objects(count, first=0):
    def one(number):
        action = {"op": "write", "value": f"value {number}"}
        return {"kind": "register", "collection": "objects", "key": f"key-{number:08}", "do": action}

    return {"operations": [one(number) for number in range(first, first + count)]}


def fill_many_spaces(daemon):
    def space(number):
        found = daemon.must("POST", "/v1/spaces", {"name": f"space {number}"})
        daemon.must("POST", f"/v1/spaces/{found['id']}/transactions", objects(10))

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(space, range(10_000)))


def fill_one_space(daemon):
    found = daemon.must("POST", "/v1/spaces", {"name": "large"})
    for first in range(0, 1_000_000, 4_000):
        daemon.must("POST", f"/v1/spaces/{found['id']}/transactions", objects(4_000, first))


def main(program):
    failed = False

    def measured(what, value, limit, unit):
        nonlocal failed
        failed |= value > limit
        print(f"{what}: {value:.2f} {unit}, at most {limit:.2f}{'' if value <= limit else '  TOO MUCH'}", flush=True)

    measured("program", os.path.getsize(program) / MEGABYTE, PROGRAM_BYTES_MAX / MEGABYTE, "MiB")
    with tempfile.TemporaryDirectory() as directory:
        many, large = os.path.join(directory, "many"), os.path.join(directory, "large")
        daemon = Daemon(program, many)
        fill_many_spaces(daemon)
        print(f"after filling: {daemon.resident_bytes() / MEGABYTE:.2f} MiB", flush=True)
        daemon.stop()
        daemon = Daemon(program, many)
        ready = daemon.until_ready()
        time.sleep(10)
        measured("idle, 10,000 spaces, 100,000 objects", daemon.resident_bytes() / MEGABYTE, IDLE_BYTES_MAX / MEGABYTE, "MiB")
        measured("ready with them", ready, READY_SECONDS_MAX, "s")
        daemon.stop()
        daemon = Daemon(program, large)
        fill_one_space(daemon)
        daemon.process.kill()
        daemon.process.wait()
        daemon = Daemon(program, large)
        measured("ready after kill -9, 1,000,000 objects", daemon.until_ready(), READY_SECONDS_MAX, "s")
        daemon.stop()
        daemon = Daemon(program, large)
        measured("ready after a stop, 1,000,000 objects", daemon.until_ready(), READY_SECONDS_MAX, "s")
        daemon.stop()
    sys.exit(1 if failed else 0)


main(sys.argv[1])
