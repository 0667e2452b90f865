"""Promise: what sending again cannot cure is raised as the right class, once."""

import openai
import pytest


def ask(text):
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}


@pytest.fixture
def client(new_openai, sent):
    """As it comes, with its own retries: nothing here may make it use them."""
    return new_openai(max_retries=3, http_client=openai.DefaultHttpxClient(event_hooks=sent.hooks()))


def test_a_key_that_was_used_for_another_request(client, once, sent, upstream):
    client.chat.completions.create(**ask("one"), extra_headers=once)
    before = (upstream.calls(), sent.count)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**ask("another"), extra_headers=once)
    assert refused.value.code == "idempotency_key_reused"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**ask("another"), stream=True, extra_headers=once)
    assert (upstream.calls(), sent.count) == (before[0], before[1] + 2)


def test_a_key_that_is_none(client, sent, upstream):
    before = upstream.calls()
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**ask("one"), extra_headers={"Idempotency-Key": "k" * 300})
    assert refused.value.code == "idempotency_key_invalid"
    assert (upstream.calls(), sent.count) == (before, 1)


def test_an_api_key_that_is_wrong(client, once, sent, upstream):
    before = upstream.calls()
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong-key-0123456789").chat.completions.create(**ask("one"), extra_headers=once)
    assert (upstream.calls(), sent.count) == (before, 1)


@pytest.mark.parametrize("streamed", [False, True])
def test_what_the_provider_refuses(client, once, sent, upstream, streamed):
    error = {"message": "No such thing.", "type": "invalid_request_error", "param": "model", "code": "model_odd"}
    upstream.script({"kind": "refuse", "status": 400, "body": {"error": error}, "times": 2})
    before = upstream.calls()
    for _ in range(2):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**ask("refused"), stream=streamed, extra_headers=once)
        assert refused.value.code == "model_odd"
    # Nothing was billed: who asks again asks the provider again.
    assert (upstream.calls(), sent.count) == (before + 2, 2)


def test_an_address_that_is_none(client, once, sent):
    with pytest.raises(openai.NotFoundError):
        client.post("/nowhere", body={}, cast_to=object, options={"headers": once})
    assert sent.count == 1
