"""Promise: a program with Anthropic's Python library that runs again gets what it has got, and pays for nothing."""

import asyncio

import anthropic
import pytest

BETA = "context-1m-2025-08-07"


def ask(text):
    return {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}


def message(client, headers):
    answer = client.messages.create(**ask("message"), extra_headers=headers)
    assert answer.stop_reason == "end_turn"
    return answer.content[0].text


def raw_stream(client, headers):
    events = list(client.messages.create(**ask("events"), stream=True, extra_headers=headers))
    assert [events[0].type, events[-1].type] == ["message_start", "message_stop"]
    return "".join(event.delta.text for event in events if event.type == "content_block_delta")


def stream_helper(client, headers):
    with client.messages.stream(**ask("helper"), extra_headers=headers) as stream:
        text = "".join(stream.text_stream)
        assert text == stream.get_final_message().content[0].text
        return text


def beta(client, headers):
    return client.beta.messages.create(**ask("beta"), betas=[BETA], extra_headers=headers).content[0].text


@pytest.mark.parametrize("program", [message, raw_stream, stream_helper, beta])
def test_sync(program, new_anthropic, once, run_twice):
    run_twice(lambda: program(new_anthropic(), once), calls=1)


def test_async(new_async_anthropic, key, run_twice):
    async def calls():
        async with new_async_anthropic() as client:

            async def streamed():
                async with client.messages.stream(
                    **ask("stream"), extra_headers={"Idempotency-Key": f"{key}/stream"}
                ) as stream:
                    return await stream.get_final_text()

            answer, text = await asyncio.gather(
                client.messages.create(**ask("message"), extra_headers={"Idempotency-Key": f"{key}/message"}),
                streamed(),
            )
            return [answer.model_dump(), text]

    assert all(run_twice(lambda: asyncio.run(calls()), calls=2))


def test_betas_reach_the_provider_and_are_part_of_what_the_key_names(new_anthropic, once, upstream):
    client = new_anthropic()
    beta(client, once)
    assert BETA in upstream.last()["headers"]["anthropic-beta"]
    before = upstream.calls()
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.beta.messages.create(**ask("beta"), betas=["another-beta-2025-01-01"], extra_headers=once)
    assert "another request" in str(refused.value)
    assert upstream.calls() == before


def test_errors_are_those_of_the_library_and_nothing_is_sent_again(new_anthropic, once, sent, upstream):
    http_client = anthropic.DefaultHttpxClient(event_hooks=sent.hooks())
    client = new_anthropic(max_retries=3, http_client=http_client)
    client.messages.create(**ask("one"), extra_headers=once)
    before = (upstream.calls(), sent.count)
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(**ask("another"), extra_headers=once)
    assert refused.value.body["type"] == "error"
    with pytest.raises(anthropic.AuthenticationError):
        client.with_options(api_key="wrong-key-0123456789").messages.create(**ask("one"), extra_headers=once)
    assert (upstream.calls(), sent.count) == (before[0], before[1] + 2)
