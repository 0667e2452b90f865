"""
Promise: Python's libraries, which fire an event at every blank line once they have seen an id, read our streams to the end:
through pauses, past comments and blocks without data, late, and again.
"""

import asyncio
import json
import time

import pytest

MODEL = "gpt-4o-mini"
ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "stream"}]}
ASKED_MESSAGE = {"model": "claude-sonnet-4-0", "max_tokens": 100, "messages": ASKED["messages"]}
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


def text_of_chat(client, headers):
    stream = client.chat.completions.create(**ASKED, stream=True, extra_headers=headers)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def text_of_response(client, headers):
    events = list(client.responses.create(model=MODEL, input="stream", stream=True, extra_headers=headers))
    assert events[-1].type == "response.completed"
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def text_of_message(client, headers):
    with client.messages.stream(**ASKED_MESSAGE, extra_headers=headers) as stream:
        return "".join(stream.text_stream)


READERS = {
    "chat": (text_of_chat, CHAT, "new_openai"),
    "responses": (text_of_response, RESPONSES, "new_openai"),
    "messages": (text_of_message, MESSAGES, "new_anthropic"),
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
@pytest.mark.parametrize("reader", READERS)
def test_blocks_between_the_events_are_no_events(reader, block, once, upstream, run_twice, request):
    read, events, client = READERS[reader]
    client = request.getfixturevalue(client)()
    upstream.script({"kind": "answer", "body": block + block.join(events) + block})
    assert run_twice(lambda: read(client, once), calls=1) == "one two"


def paused(path, events):
    """The first event, a pause, and the rest at once. The upstream adds the `data: ` of the first line."""
    first, *rest = events
    if not first.startswith("data: "):
        # Of a named event, the name; the libraries read both orders.
        name, data = first.rstrip("\n").split("\n")
        first = f"{data}\n{name}\n\n"
    rest = "".join(rest)
    return {
        "kind": "answer",
        "chunkDelayMs": PAUSE_SECONDS * 1000,
        "match": {"path": path},
        "events": [first.removeprefix("data: ").removesuffix("\n\n"), f"{{}}\n\n{rest}".removeprefix("{}\n\n").removeprefix("data: ").removesuffix("\n\n")],
    }


def test_a_pause_is_read_through_by_those_who_began_and_by_those_who_come_late(
    new_async_openai, new_async_anthropic, key, upstream
):
    upstream.script(paused("/v1/chat/completions", CHAT))
    before = upstream.calls()

    async def calls():
        async with new_async_openai() as openai_client:
            began = asyncio.Event()

            async def read():
                stream = await openai_client.chat.completions.create(
                    **ASKED, stream=True, extra_headers={"Idempotency-Key": key}
                )
                text, times = "", []
                async for part in stream:
                    text += part.choices[0].delta.content or ""
                    times.append(time.monotonic())
                    began.set()
                return text, times[-1] - times[0]

            async def read_late():
                await began.wait()
                return await read()

            return await asyncio.gather(read(), read_late())

    for text, seconds in asyncio.run(calls()):
        assert text == "one two"
        # Both have had the first event before the pause.
        assert seconds > PAUSE_SECONDS - 2
    assert upstream.calls() == before + 1


def test_a_stream_that_was_broken_off_comes_again_from_its_beginning(new_openai, once, upstream):
    upstream.script({"kind": "answer", "chunkDelayMs": 200})
    before = upstream.calls()
    stream = new_openai().chat.completions.create(**ASKED, stream=True, extra_headers=once)
    next(iter(stream))
    stream.close()
    text = text_of_chat(new_openai(), once)
    assert text.startswith("call ")
    assert text_of_chat(new_openai(), once) == text
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
