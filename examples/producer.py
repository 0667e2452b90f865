#!/usr/bin/env python3
"""A producer that may crash at any moment.

It submits every line of its work under a stable key and appends the answers to a file; started
again, it submits everything again, and only what has no answer yet is run.

    ASKONCE_API_KEY=… python3 examples/producer.py --crash-after 12
    ASKONCE_API_KEY=… python3 examples/producer.py

Python 3.9 or newer, standard library only.
"""

import argparse
import hashlib
import http.client
import json
import os
import random
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

WAIT_SECONDS = 30
# urllib's timeout bounds each read, not their sum: a server that sends a byte now and then is not caught by it.
# The job itself is safe at the server whatever happens here.
REQUEST_TIMEOUT_SECONDS = 20
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 20
OPERATIONS = {
    "/v1/chat/completions": "chat.completions",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
}


class Refused(Exception):
    """What asking again cannot mend."""


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def parse_args():
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Submits each line of FILE (JSONL, the forms of examples/README.md), appends answers to a file.\n"
        "Run it again after a crash: finished keys are replayed, running ones attached, only missing ones run.",
        epilog="ASKONCE_API_KEY  the key npm start prints (required)\n"
        "ASKONCE_URL      where the server is (default http://127.0.0.1:8787)\n\n"
        "Exit code: 0 every line answered, 1 some failed, 2 wrong usage.",
    )
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="default: the first 40 lines of examples/prompts.jsonl")
    add("--out", default="producer-py.answers.jsonl", metavar="FILE", help="append answers here (default %(default)s)")
    add("--limit", type=positive, metavar="N", help="use the first N lines only")
    add("--concurrency", type=positive, default=8, metavar="N", help="lines in flight at once (default %(default)s)")
    add("--crash-after", type=positive, metavar="N", help="kill -9 this process after N new lines in the output")
    help_text = "stop retrying a line after this long (default %(default)s)"
    add("--give-up-after", type=positive, default=600, metavar="SECONDS", help=help_text)
    options = parser.parse_args()
    if options.file is None:
        options.file = Path(__file__).with_name("prompts.jsonl")
        options.limit = options.limit or 40
    options.api_key = os.environ.get("ASKONCE_API_KEY") or parser.error("ASKONCE_API_KEY is not set")
    options.server = os.environ.get("ASKONCE_URL", "http://127.0.0.1:8787").rstrip("/")
    try:
        split = urllib.parse.urlsplit(options.server)
        if split.scheme not in ("http", "https") or not split.hostname or split.port == 0:
            raise ValueError(f"ASKONCE_URL is not an http address: {options.server}")
        # Split at \n alone: splitlines() would also cut at U+2028, which may stand inside a JSON string.
        text = Path(options.file).read_bytes().decode("utf-8")
        options.answered = read_answered(Path(options.out))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    options.lines = text.split("\n")[: options.limit]
    return options


def read_answered(out):
    """Keys already in the output file. A last line cut short by a crash is removed: its answer is asked for again.

    A file that is not such an output is left alone, or a slip in --out would cut somebody's text.
    """
    if not out.exists():
        return set()
    data = out.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    rest = data[len(whole) :]
    lines = [line for line in whole.split(b"\n") if line]
    start = b'{"key": "producer-py/'
    if not all(line.startswith(start) or start.startswith(line) for line in [*lines, rest]):
        raise ValueError(f"{out} exists and is not an output of this program")
    if rest:
        os.truncate(out, len(whole))
    return {json.loads(line)["key"] for line in lines}


def stable_key(file, line):
    """The key comes from the content of the line.

    The same line has the same key in every run, wherever it stands in the file, and an edited line is a new
    question. A random key or a counter would pay again after each crash.
    """
    name = re.sub(r"[^\x21-\x7e]", "_", Path(file).name)[:100]
    return f"producer-py/{name}/{hashlib.sha256(line.encode()).hexdigest()[:32]}"


def parse_object(text):
    value = json.loads(text)
    if not isinstance(value, dict):
        raise Refused("not a JSON object")
    return value


def to_submission(line):
    """The submission that a line of work stands for, whichever of the three forms it has."""
    if "prompt" in line:
        system = [{"role": "system", "content": line["system"]}] if "system" in line else []
        messages = [*system, {"role": "user", "content": line["prompt"]}]
        return {"operation": "chat.completions", "request": {"model": line.get("model"), "messages": messages}}
    if "body" in line:
        if line.get("url") not in OPERATIONS:
            raise Refused(f"unknown url {json.dumps(line.get('url'))}")
        return {"operation": OPERATIONS[line["url"]], "request": line["body"]}
    return {name: value for name, value in line.items() if name != "key"}


def may_retry(reply):
    """What the server says comes first (x-should-retry, then retryable); the status decides where it says nothing."""
    said = reply.headers.get("x-should-retry")
    if said in ("true", "false"):
        return said == "true"
    if isinstance(reply.body.get("retryable"), bool):
        return reply.body["retryable"]
    return reply.status == 429 or reply.status >= 500


def backoff_seconds(failures, retry_after):
    """Full jitter, doubling to a cap, so that many producers do not come back together. Retry-After is the minimum."""
    jitter = random.uniform(0, min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(failures, 16)))
    asked = int(retry_after) if (retry_after or "").isdecimal() else 0
    return asked + min(jitter, 1) if asked else jitter


class Producer:
    def __init__(self, options):
        self.options = options
        self.counts = {"new": 0, "attached": 0, "replayed": 0, "failed": 0}
        self.answered = options.answered
        self.found = len(self.answered)
        self.lock = threading.Lock()

    def call(self, method, path, headers, submission=None):
        """One HTTP request with a deadline. Raises OSError or HTTPException when no whole reply came."""
        request = urllib.request.Request(
            self.options.server + path,
            method=method,
            data=None if submission is None else json.dumps(submission).encode(),
            headers={"Authorization": f"Bearer {self.options.api_key}", "Content-Type": "application/json", **headers},
        )
        timeout = REQUEST_TIMEOUT_SECONDS + (WAIT_SECONDS if method == "GET" else 0)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                reply, text = Reply(response.status, response.headers, {}), response.read()
        except urllib.error.HTTPError as error:
            with error:
                reply, text = Reply(error.code, error.headers, {}), error.read()
        try:
            reply.body = parse_object(text)
        except (ValueError, Refused):
            # A proxy's own error page: its status is all there is to go by.
            if reply.status < 300:
                raise Refused(f"no JSON from {self.options.server}: is this an Askonce server?") from None
        return reply

    def persist(self, what, give_up_at, attempt):
        """Asks until there is a 2xx, with the same key each time. Gives up at the line's deadline.

        A request whose reply was lost may well have been accepted, and then the next one attaches to that job.
        """
        failures = 0
        while True:
            retry_after = None
            try:
                reply = attempt()
                if reply.status < 300 or reply.status == 404:
                    return reply
                said = [reply.body.get("code"), reply.body.get("detail")]
                problem = " ".join([str(reply.status), *(part for part in said if isinstance(part, str))])
                if not may_retry(reply):
                    raise Refused(problem)
                retry_after = reply.headers.get("retry-after")
            except (OSError, http.client.HTTPException) as error:
                problem = str(getattr(error, "reason", error)) or type(error).__name__
            pause = backoff_seconds(failures, retry_after)
            if time.monotonic() + pause > give_up_at:
                raise Refused(f"gave up: {problem}")
            print(f"{what}: {problem}; again in {pause:.1f} s", file=sys.stderr)
            time.sleep(pause)
            failures += 1

    def submit(self, key, submission):
        # Without Prefer: wait on purpose: 200 then means that the answer was there already, 202 that it was not.
        return self.call("POST", "/v1/jobs", {"Idempotency-Key": key}, submission)

    def wait_for(self, job_id):
        return self.call("GET", f"/v1/jobs/{job_id}", {"Prefer": f"wait={WAIT_SECONDS}"})

    def ask(self, line_number, key, submission):
        """Submits one line and waits until its job has ended. Raises Refused when no answer will come by itself."""
        give_up_at = time.monotonic() + self.options.give_up_after
        what = f"line {line_number}"
        outcome = None
        while time.monotonic() < give_up_at:
            reply = self.persist(what, give_up_at, lambda: self.submit(key, submission))
            if reply.status == 404:
                raise Refused(f"404 from {self.options.server}: is this an Askonce server?")
            started = reply.headers.get("idempotent-replayed") != "true"
            outcome = outcome or ("new" if started else "replayed" if reply.status == 200 else "attached")
            while reply.status != 404:
                job, job_id, state = reply.body, reply.body.get("id"), reply.body.get("state")
                if not isinstance(job_id, str) or not isinstance(state, str):
                    raise Refused(f"no job in the answer of {self.options.server}: is this an Askonce server?")
                if state == "succeeded":
                    return outcome, job
                if state == "uncertain":
                    held = f"job {job_id} is held: it may have been paid"
                    raise Refused(f"{held}. POST its /retry with consent, or its /fail")
                if state in ("failed", "cancelled"):
                    raise Refused(f"job {job_id} {state}: {json.dumps(job.get('error'))}")
                if time.monotonic() > give_up_at:
                    raise Refused(f"gave up: job {job_id} is still {state}")
                reply = self.persist(what, give_up_at, lambda: self.wait_for(job_id))
            # 404 while waiting: expired or deleted meanwhile. The key is free, so the question is asked anew.
        raise Refused("gave up: its job was deleted again and again")

    def append(self, key, job):
        """Appends an answer that the file does not have yet. The caller holds the lock."""
        if key in self.answered:
            return
        line = json.dumps({"key": key, "job_id": job["id"], "response": job.get("response")}, ensure_ascii=False)
        try:
            # One write per answer, whole lines. No fsync: what a power cut takes from this file, the server still has.
            with open(self.options.out, "ab") as out:
                out.write(line.encode("utf-8", "backslashreplace") + b"\n")
        except OSError as error:
            print(f"cannot write {self.options.out}: {error}", file=sys.stderr)
            os._exit(1)
        self.answered.add(key)
        crash_after = self.options.crash_after
        if crash_after and len(self.answered) - self.found >= crash_after:
            print(f"killing this process after {crash_after} answers; run again without it", file=sys.stderr)
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    def run_line(self, numbered):
        line_number, line = numbered
        if not line.strip():
            return
        key = stable_key(self.options.file, line)
        try:
            outcome, job = self.ask(line_number, key, to_submission(parse_object(line)))
        except (Refused, ValueError) as error:
            with self.lock:
                self.counts["failed"] += 1
            print(f"line {line_number}: {error}", file=sys.stderr)
            return
        with self.lock:
            self.counts[outcome] += 1
            self.append(key, job)


def main():
    options = parse_args()
    producer = Producer(options)
    pool = ThreadPoolExecutor(options.concurrency)
    try:
        for _ in pool.map(producer.run_line, enumerate(options.lines, 1)):
            pass
    except KeyboardInterrupt:
        # Threads in a wait would hold the exit for up to a minute; nothing is lost by not waiting for them.
        os._exit(130)
    counts = "  ".join(f"{name} {count}" for name, count in producer.counts.items())
    print(f"{counts}  ({options.out})")
    return 1 if producer.counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
