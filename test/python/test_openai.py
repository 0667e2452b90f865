"""Promise: a program with OpenAI's Python library that runs again gets what it has got, and pays for nothing."""

import asyncio
import json

import pytest

MODEL = "gpt-4o-mini"


def ask(text):
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


def chat(client, headers):
    answer = client.chat.completions.create(**ask("chat"), extra_headers=headers)
    assert answer.choices[0].finish_reason == "stop"
    return answer.model_dump()


def chat_stream(client, headers):
    chunks = list(client.chat.completions.create(**ask("stream"), stream=True, extra_headers=headers))
    assert chunks[-1].choices[0].finish_reason == "stop"
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def chat_stream_helper(client, headers):
    with client.chat.completions.stream(**ask("helper"), extra_headers=headers) as stream:
        return stream.get_final_completion().choices[0].message.content


def response(client, headers):
    answer = client.responses.create(model=MODEL, input="response", extra_headers=headers)
    assert answer.status == "completed"
    return answer.output_text


def response_stream(client, headers):
    events = list(client.responses.create(model=MODEL, input="stream", stream=True, extra_headers=headers))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text
    return text


def embedding(client, headers):
    answer = client.embeddings.create(model="text-embedding-3-small", input="embedding", extra_headers=headers)
    return answer.data[0].embedding


@pytest.mark.parametrize("program", [chat, chat_stream, chat_stream_helper, response, response_stream, embedding])
def test_sync(program, new_openai, once, run_twice):
    run_twice(lambda: program(new_openai(), once), calls=1)


def test_async(new_async_openai, key, run_twice):
    async def calls():
        async with new_async_openai() as client:

            def once(name):
                return {"Idempotency-Key": f"{key}/{name}"}

            async def text_of_stream():
                stream = await client.chat.completions.create(**ask("stream"), stream=True, extra_headers=once("stream"))
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            async def last_of_responses():
                stream = await client.responses.create(
                    model=MODEL, input="stream", stream=True, extra_headers=once("events")
                )
                return [event async for event in stream][-1].response.output_text

            answer, text, response, last, embedding = await asyncio.gather(
                client.chat.completions.create(**ask("chat"), extra_headers=once("chat")),
                text_of_stream(),
                client.responses.create(model=MODEL, input="response", extra_headers=once("response")),
                last_of_responses(),
                client.embeddings.create(model="text-embedding-3-small", input="e", extra_headers=once("embedding")),
            )
            return [answer.model_dump(), text, response.output_text, last, embedding.data[0].embedding]

    results = run_twice(lambda: asyncio.run(calls()), calls=5)
    assert all(results)


def test_programs_at_the_same_time_share_one_call(new_async_openai, once, upstream):
    async def crowd():
        async with new_async_openai() as client:
            asked = [client.chat.completions.create(**ask("crowd"), extra_headers=once) for _ in range(8)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]

    before = upstream.calls()
    assert len(set(asyncio.run(crowd()))) == 1
    assert upstream.calls() == before + 1


def test_an_agent_is_a_run_under_one_scope(new_openai, scope, upstream, run_twice):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {
        "id": "chatcmpl-tool",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    upstream.script({"kind": "answer", "body": json.dumps(answer)})
    weather = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}

    def agent():
        # As agents do it: the headers are those of the client, each call sends what has been said so far.
        client = new_openai(default_headers=scope)
        messages = [{"role": "user", "content": "What is the weather?"}]
        for _ in range(4):
            reply = client.chat.completions.create(
                model=MODEL, messages=messages, tools=[{"type": "function", "function": weather}]
            )
            said = reply.choices[0].message
            if not said.tool_calls:
                return said.content
            messages.append(said.model_dump(exclude_none=True))
            for tool in said.tool_calls:
                city = json.loads(tool.function.arguments)["city"]
                messages.append({"role": "tool", "tool_call_id": tool.id, "content": f"sunny in {city}"})
        raise AssertionError("the agent came to no end")

    run_twice(agent, calls=2)


def test_a_list_embedded_in_several_requests_is_a_run(new_openai, scope, run_twice):
    def embed():
        client = new_openai(default_headers=scope)
        texts = ["one", "two", "three"]
        return [client.embeddings.create(model="text-embedding-3-small", input=[t]).data[0].embedding for t in texts]

    assert len(run_twice(embed, calls=3)) == 3
