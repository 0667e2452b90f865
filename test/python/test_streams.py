"""
Promise: Python's libraries, which fire an event at every blank line once they have seen an id, read our streams to the end:
through pauses, past comments and blocks without data, late, and again.
"""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

MODEL = "gpt-4o-mini"
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "stream"}]}
ASKED_MESSAGE = {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": ASKED["messages"]}
# One second longer than the silence after which we send a comment.
PAUSE_SECONDS = 16


def chunk(content, finish=None):
    delta = {"content": content} if content else {}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}


def event(value, name=None):
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(value)}\n\n"


def named(value):
    return event(value, value["type"])


CHAT = [event(chunk("one ")), event(chunk("two")), event(chunk("", "stop")), "data: [DONE]\n\n"]

RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "model": MODEL, "usage": None}
TEXT = {"type": "output_text", "text": "one two", "annotations": []}
ITEM = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [TEXT]}
PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
RESPONSES = [
    named({"type": "response.created", "response": {**RESPONSE, "status": "in_progress", "output": []}, "sequence_number": 0}),
    named({"type": "response.output_text.delta", "delta": "one ", **PLACE, "sequence_number": 1}),
    named({"type": "response.output_text.delta", "delta": "two", **PLACE, "sequence_number": 2}),
    named({"type": "response.completed", "response": {**RESPONSE, "status": "completed", "output": [ITEM]}, "sequence_number": 3}),
]

MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
MESSAGES = [
    named({"type": "message_start", "message": {**MESSAGE, "usage": {"input_tokens": 1, "output_tokens": 1}}}),
    named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "one two"}}),
    named({"type": "content_block_stop", "index": 0}),
    named({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 2}}),
    named({"type": "message_stop"}),
]

# What providers and the proxies before them send between events, and the standard tells readers to pass over.
BLOCKS = {
    "a comment": ": OPENROUTER PROCESSING\n\n",
    "comments": ": one\n: two\n\n: three\n\n",
    "an event without data": "event: ping\n\n",
    "empty data": "event: ping\ndata:\n\n",
    "an id alone": "id: 7\n\n",
    "a time to wait": "retry: 3000\n\n",
    "a ping": 'event: ping\ndata: {"type": "ping"}\n\n',
    "blank lines": "\n\n\n",
}


def parts_of_chat(client, headers):
    for part in client.chat.completions.create(**ASKED, stream=True, extra_headers=headers):
        yield part.choices[0].delta.content or ""


def parts_of_response(client, headers):
    for part in client.responses.create(model=MODEL, input="stream", stream=True, extra_headers=headers):
        yield part.delta if part.type == "response.output_text.delta" else ""
    assert part.type == "response.completed"


def parts_of_message(client, headers):
    for part in client.messages.create(**ASKED_MESSAGE, stream=True, extra_headers=headers):
        yield part.delta.text if part.type == "content_block_delta" else ""
    assert part.type == "message_stop"


def text_of_helper(client, headers):
    with client.messages.stream(**ASKED_MESSAGE, extra_headers=headers) as stream:
        return "".join(stream.text_stream)


READERS = {
    "chat": (parts_of_chat, CHAT, "new_openai"),
    "responses": (parts_of_response, RESPONSES, "new_openai"),
    "messages": (parts_of_message, MESSAGES, "new_anthropic"),
    "the helper of messages": (text_of_helper, MESSAGES, "new_anthropic"),
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
@pytest.mark.parametrize("reader", READERS)
def test_blocks_between_the_events_are_no_events(reader, block, once, upstream, run_twice, request):
    read, events, client = READERS[reader]
    client = request.getfixturevalue(client)()
    upstream.script({"kind": "answer", "body": block + block.join(events) + block})
    assert run_twice(lambda: "".join(read(client, once)), calls=1) == "one two"


def test_blocks_between_the_events_are_no_events_read_asynchronously(new_async_openai, once, upstream, run_twice):
    blocks = "".join(BLOCKS.values())
    upstream.script({"kind": "answer", "body": blocks + blocks.join(CHAT) + blocks})

    async def read():
        async with new_async_openai() as client:
            stream = await client.chat.completions.create(**ASKED, stream=True, extra_headers=once)
            return "".join([part.choices[0].delta.content or "" async for part in stream])

    assert run_twice(lambda: asyncio.run(read()), calls=1) == "one two"


def paused(path, events):
    """The first event, a pause, and the rest at once. The upstream writes `data: ` before each of the two, and a blank line behind."""

    def data_first(event):
        name, _, data = event.strip().rpartition("data: ")
        return f"{data}\n{name}".strip()

    first, second, *rest = events
    rest = "".join(rest).removesuffix("\n\n")
    return {
        "kind": "answer",
        "match": {"path": path},
        "chunkDelayMs": PAUSE_SECONDS * 1000,
        "events": [data_first(first), f"{data_first(second)}\n\n{rest}"],
    }


def test_a_pause_is_read_through_by_those_who_began_and_by_those_who_come_late(
    new_openai, new_anthropic, key, upstream
):
    upstream.script(
        paused("/v1/chat/completions", CHAT), paused("/v1/responses", RESPONSES), paused("/v1/messages", MESSAGES)
    )
    before = upstream.calls()

    def read(parts, client, name, began):
        """The text, and the longest time between two of its parts."""
        text, pause, last = "", 0, None
        for part in parts(client, {"Idempotency-Key": f"{key}/{name}"}):
            now = time.monotonic()
            pause = max(pause, now - (last or now))
            text, last = text + part, now
            began.set()
        return text, pause

    def read_late(parts, client, name, began):
        assert began.wait(timeout=10)
        return read(parts, client, name, began)

    clients = {
        "chat": (parts_of_chat, new_openai()),
        "responses": (parts_of_response, new_openai()),
        "messages": (parts_of_message, new_anthropic()),
    }
    with ThreadPoolExecutor(2 * len(clients)) as threads:
        reads = []
        for name, (parts, client) in clients.items():
            began = threading.Event()
            reads += [threads.submit(reader, parts, client, name, began) for reader in (read, read_late)]
        results = [reading.result() for reading in reads]
    for text, pause in results:
        assert text == "one two"
        # Those who came late have had the first event before the pause, too.
        assert pause > PAUSE_SECONDS - 4
    assert upstream.calls() == before + len(clients)


def test_a_stream_that_was_broken_off_comes_again_from_its_beginning(new_openai, once, upstream):
    upstream.script({"kind": "answer", "chunkDelayMs": 200})
    before = upstream.calls()
    stream = new_openai().chat.completions.create(**ASKED, stream=True, extra_headers=once)
    next(iter(stream))
    stream.close()
    text = "".join(parts_of_chat(new_openai(), once))
    assert text.startswith("call ")
    assert "".join(parts_of_chat(new_openai(), once)) == text
    assert upstream.calls() == before + 1


def test_a_response_in_the_background_goes_on_behind_the_event_that_is_named(new_openai, once, upstream):
    client = new_openai()
    before = upstream.calls()
    asked = {"model": MODEL, "input": "stream", "background": True, "stream": True}
    events = list(client.responses.create(**asked, extra_headers=once))
    assert events[-1].type == "response.completed"
    after = events[2].sequence_number
    rest = list(client.responses.retrieve(events[-1].response.id, stream=True, starting_after=after))
    assert [event.sequence_number for event in rest] == [event.sequence_number for event in events[3:]]
    assert upstream.calls() == before + 1
