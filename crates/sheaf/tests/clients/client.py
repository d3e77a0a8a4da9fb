"""What the official Python client sees of a front door: python3 client.py BASE_URL.

There are workers for the models `echo/chat` and `narrow` (stub_backend.py), of which the door lets four calls in at once, and
`hash-embed`. Every step prints its name when it has
passed; the exit code says whether all have.
"""

import json
import struct
import sys
import threading
import time

import openai

PATIENCE = 120
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", timeout=PATIENCE)
steps = []


def step(function):
    steps.append(function)
    return function


def raises(kind, call):
    """Insists on an exception of exactly this class, with all that OpenAI's errors have."""
    try:
        call()
    except openai.APIStatusError as error:
        assert type(error) is kind, f"{type(error).__name__} in the place of {kind.__name__}: {error}"
        assert error.request_id, f"no x-request-id: {error}"
        assert set(error.body) >= {"message", "type", "param", "code"}, error.body
        return error
    raise AssertionError(f"no {kind.__name__}")


def wait(batch, *states):
    """Polls a batch until it is in one of these states."""
    end = time.monotonic() + PATIENCE
    while batch.status not in states:
        assert time.monotonic() < end, f"still {batch.status}, not {states}: {batch}"
        assert batch.status not in ("completed", "failed", "expired", "cancelled"), f"{batch.status}, not {states}: {batch}"
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def line(custom_id, said, url="/v1/chat/completions"):
    body = {"model": "echo/chat", "messages": [{"role": "user", "content": said}]}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def upload(lines, name="in.jsonl", purpose="batch"):
    text = "".join(json.dumps(each) + "\n" for each in lines)
    return client.files.create(file=(name, text.encode()), purpose=purpose)


def start(lines, endpoint="/v1/chat/completions", window="24h", **more):
    return client.batches.create(
        input_file_id=upload(lines).id, endpoint=endpoint, completion_window=window, **more
    )


def results(file_id):
    lines = client.files.content(file_id).text.splitlines()
    found = {each["custom_id"]: each for each in map(json.loads, lines)}
    assert len(found) == len(lines), "a custom_id stands there twice"
    return found


@step
def models():
    ids = [model.id for model in client.models.list()]
    assert set(ids) >= {"echo/chat", "hash-embed"}, ids
    for name in ("echo/chat", "hash-embed"):
        model = client.models.retrieve(name)
        assert (model.id, model.object) == (name, "model"), model
    raises(openai.NotFoundError, lambda: client.models.retrieve("nobody"))


@step
def chat():
    answer = client.chat.completions.create(model="echo/chat", messages=[{"role": "user", "content": "Grüße"}])
    assert answer.choices[0].message.content == "echo: Grüße", answer
    assert answer.usage.total_tokens == 5, answer
    assert answer.object == "chat.completion", answer


@step
def chat_stream():
    asked = {"model": "echo/chat", "messages": [{"role": "user", "content": "bit by bit"}]}
    chunks = list(client.chat.completions.create(**asked, stream=True))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == "echo: bit by bit", chunks
    assert chunks[-1].choices == [] or chunks[-1].choices[0].finish_reason == "stop", chunks[-1]


@step
def embeddings():
    texts = ["the quick brown fox", "jumps", "the quick brown fox"]
    # The client asks for base64 unless it is told otherwise, and decodes it.
    packed = client.embeddings.create(model="hash-embed", input=texts)
    plain = client.embeddings.create(model="hash-embed", input=texts, encoding_format="float")
    bits = [[struct.pack("<f", value) for value in item.embedding] for answer in (packed, plain) for item in answer.data]
    assert bits[:3] == bits[3:], "base64 and float differ"
    assert bits[0] == bits[2] != bits[1], "equal texts, equal vectors"
    assert [item.index for item in packed.data] == [0, 1, 2]
    assert packed.usage.total_tokens > 0 and packed.model == "hash-embed", packed.usage


@step
def online_errors():
    asked = {"messages": [{"role": "user", "content": "x"}]}
    raises(openai.NotFoundError, lambda: client.chat.completions.create(model="nobody", **asked))
    raises(openai.BadRequestError, lambda: client.chat.completions.create(model="echo/chat", messages="no list"))
    wish = [{"role": "user", "content": "status 400"}]
    raises(openai.BadRequestError, lambda: client.chat.completions.create(model="echo/chat", messages=wish))


def ask(model, said, of=None):
    return (of or client).chat.completions.create(model=model, messages=[{"role": "user", "content": said}])


@step
def too_many_calls():
    # Four are let in, and held; whoever comes fifth is told so.
    impatient, refused = client.with_options(max_retries=0), []

    def hold():
        try:
            ask("narrow", "hold gate", impatient)
        except openai.RateLimitError as error:
            refused.append(error)

    held = [threading.Thread(target=hold) for _ in range(5)]
    for thread in held:
        thread.start()
    end = time.monotonic() + PATIENCE
    while not refused:
        assert time.monotonic() < end, "five calls are let in"
        time.sleep(0.05)
    error = raises(openai.RateLimitError, lambda: ask("narrow", "one more", impatient))
    assert error.code == "busy" and 1 <= int(error.response.headers["retry-after"]) <= 60, error.response.headers

    # The client's own retry comes when it was told to, and is let in, since there is room by then.
    seen = []

    def see(response):
        seen.append((response.status_code, time.monotonic(), response.headers.get("retry-after")))
        if response.status_code == 429:
            ask("echo/chat", "release gate")
            for thread in held:
                thread.join()

    hooked = openai.DefaultHttpxClient(event_hooks={"response": [see]})
    patient = openai.OpenAI(base_url=sys.argv[1], api_key="none", timeout=PATIENCE, http_client=hooked)
    assert ask("narrow", "at last", patient).choices[0].message.content == "echo: at last"
    assert [status for status, _, _ in seen] == [429, 200], seen
    assert seen[1][1] - seen[0][1] >= int(seen[0][2]), f"it did not wait: {seen}"
    assert len(refused) == 1, refused


@step
def files():
    made = [upload([line(f"l{n}", "x")], name=f"f{n}.jsonl") for n in range(3)]
    assert (made[0].filename, made[0].purpose, made[0].object) == ("f0.jsonl", "batch", "file"), made[0]
    same = client.files.retrieve(made[0].id)
    assert (same.id, same.bytes) == (made[0].id, made[0].bytes), same
    text = json.dumps(line("l0", "x")) + "\n"
    assert client.files.content(made[0].id).text == text and made[0].bytes == len(text)
    # Two a page: the client asks for the next one by itself.
    listed = [file.id for file in client.files.list(limit=2)]
    assert {file.id for file in made} <= set(listed) and len(set(listed)) == len(listed), listed
    short = client.files.create(
        file=("short.jsonl", text.encode()), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert short.expires_at == short.created_at + 3600 and made[0].expires_at is None, short
    assert client.files.delete(made[0].id).deleted
    raises(openai.NotFoundError, lambda: client.files.retrieve(made[0].id))
    raises(openai.NotFoundError, lambda: client.files.content("file-nobody"))
    raises(openai.BadRequestError, lambda: upload([], purpose="nonsense"))


@step
def batch_completes():
    lines = [line(f"c{n}", "status 400" if n == 3 else f"row {n}") for n in range(10)]
    kept = {"anchor": "created_at", "seconds": 7200}
    batch = wait(start(lines, metadata={"who": "test"}, output_expires_after=kept), "completed")
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (10, 9, 1), counts
    assert batch.metadata == {"who": "test"} and batch.finalizing_at and batch.completed_at, batch
    good = results(batch.output_file_id)
    bad = results(batch.error_file_id) if batch.error_file_id else {}
    assert set(good) | set(bad) == {f"c{n}" for n in range(10)}, (set(good), set(bad))
    assert good["c1"]["response"]["status_code"] == 200, good["c1"]
    assert good["c1"]["response"]["body"]["choices"][0]["message"]["content"] == "echo: row 1", good["c1"]
    assert (good | bad)["c3"]["response"]["status_code"] == 400, (good | bad)["c3"]
    output = client.files.retrieve(batch.output_file_id)
    assert output.expires_at == output.created_at + 7200, output
    assert batch.id in [each.id for each in client.batches.list(limit=5)]


@step
def batch_of_embeddings():
    body = {"model": "hash-embed", "input": "the quick brown fox"}
    one = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": body}
    batch = wait(start([one], endpoint="/v1/embeddings"), "completed")
    vector = results(batch.output_file_id)["e"]["response"]["body"]["data"][0]["embedding"]
    online = client.embeddings.create(model="hash-embed", input="the quick brown fox", encoding_format="float")
    assert vector == online.data[0].embedding, "a batch's vector is another than an online call's"


@step
def batch_is_cancelled():
    batch = wait(start([line("quick", "at once"), line("slow", "sleep 600")]), "in_progress")
    end = time.monotonic() + PATIENCE
    while client.batches.retrieve(batch.id).request_counts.completed < 1:
        assert time.monotonic() < end, "the quick line is never done"
        time.sleep(0.05)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch = wait(client.batches.retrieve(batch.id), "cancelled")
    assert batch.cancelling_at and batch.cancelled_at, batch
    assert set(results(batch.output_file_id)) == {"quick"}
    assert results(batch.error_file_id)["slow"]["error"]["code"] == "batch_cancelled"


@step
def batch_expires():
    batch = wait(start([line("quick", "in time"), line("slow", "sleep 600")], window="4s"), "expired")
    assert batch.expired_at and batch.expires_at, batch
    assert set(results(batch.output_file_id)) == {"quick"}
    assert results(batch.error_file_id)["slow"]["error"]["code"] == "batch_expired"


@step
def batch_errors():
    twice = wait(start([line("a", "x"), line("a", "y")]), "failed")
    assert [(error.code, error.line) for error in twice.errors.data] == [("duplicate_custom_id", 2)], twice.errors
    elsewhere = wait(start([line("a", "x", url="/v1/embeddings")]), "failed")
    assert elsewhere.errors.data[0].code == "url_mismatch", elsewhere.errors
    raises(openai.NotFoundError, lambda: client.batches.retrieve("batch_nobody"))
    made = {"input_file_id": upload([line("a", "x")]).id, "completion_window": "24h"}
    raises(openai.BadRequestError, lambda: client.batches.create(endpoint="/v1/nonsense", **made))
    done = wait(start([line("a", "x")]), "completed")
    raises(openai.ConflictError, lambda: client.batches.cancel(done.id))
    assert (done.model, done.usage.total_tokens, done.usage.output_tokens_details.reasoning_tokens) == ("echo/chat", 5, 0)


def main():
    failed = []
    for function in steps:
        if len(sys.argv) > 2 and function.__name__ not in sys.argv[2:]:
            continue
        try:
            function()
            print(f"passed {function.__name__}", flush=True)
        except Exception as error:
            failed.append(function.__name__)
            print(f"FAILED {function.__name__}: {type(error).__name__}: {error}", flush=True)
    sys.exit(1 if failed else 0)


main()
