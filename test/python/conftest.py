"""What every test here has: stock clients of the running program, and the upstream behind it, which counts its calls."""

import json
import os
import urllib.request
import uuid

import anthropic
import openai
import pytest

SERVER = os.environ["ASKONCE"]
API_KEY = os.environ["ASKONCE_API_KEY"]
UPSTREAM = os.environ["UPSTREAM"]


class Upstream:
    def _report(self):
        with urllib.request.urlopen(f"{UPSTREAM}/__calls") as response:
            return json.load(response)

    def calls(self):
        """Requests that reached it, whether it would bill them or not."""
        return self._report()["arrivals"]

    def last(self):
        """The newest request that it would bill: its headers and its JSON."""
        return self._report()["last"]

    def script(self, *steps):
        """What it does with the next requests; later ones are answered."""
        request = urllib.request.Request(f"{UPSTREAM}/__script", data=json.dumps(steps).encode(), method="POST")
        urllib.request.urlopen(request).close()


class Sent:
    """Counts the requests of a client, those that it sends again by itself included."""

    def __init__(self):
        self.count = 0

    def hooks(self):
        def count(_request):
            self.count += 1

        return {"request": [count]}


@pytest.fixture
def upstream():
    upstream = Upstream()
    upstream.script()
    return upstream


@pytest.fixture
def sent():
    return Sent()


@pytest.fixture
def key():
    return f"python/{uuid.uuid4()}"


@pytest.fixture
def once(key):
    """The header for one call."""
    return {"Idempotency-Key": key}


@pytest.fixture
def scope(key):
    """The headers for a run of several calls."""
    return {"Idempotency-Key": key, "Askonce-Key": "derive"}


def openai_options(**more):
    return {"base_url": f"{SERVER}/openai/v1", "api_key": API_KEY, "max_retries": 0, **more}


def anthropic_options(**more):
    return {"base_url": f"{SERVER}/anthropic", "api_key": API_KEY, "max_retries": 0, **more}


@pytest.fixture
def new_openai():
    return lambda **more: openai.OpenAI(**openai_options(**more))


@pytest.fixture
def new_async_openai():
    return lambda **more: openai.AsyncOpenAI(**openai_options(**more))


@pytest.fixture
def new_anthropic():
    return lambda **more: anthropic.Anthropic(**anthropic_options(**more))


@pytest.fixture
def new_async_anthropic():
    return lambda **more: anthropic.AsyncAnthropic(**anthropic_options(**more))


@pytest.fixture
def run_twice(upstream):
    """Runs a program twice: the second run makes no call and gets the same."""

    def run(program, calls):
        before = upstream.calls()
        first = program()
        assert first
        assert upstream.calls() == before + calls
        assert program() == first
        assert upstream.calls() == before + calls
        return first

    return run
