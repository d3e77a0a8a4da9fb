// What the official Node client sees of a front door: node client.mjs BASE_URL. The same as client.py, and shorter: what
// differs is how each of them uploads, pages, decodes and retries.

import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const PATIENCE = 120_000;
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", timeout: PATIENCE });

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function raises(kind, call) {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof kind, `${error?.constructor?.name} in the place of ${kind.name}: ${error}`);
    assert.ok(error.requestID, `no x-request-id: ${error}`);
    return true;
  });
}

async function wait(batch, ...states) {
  const end = Date.now() + PATIENCE;
  while (!states.includes(batch.status)) {
    assert.ok(Date.now() < end, `still ${batch.status}, not ${states}`);
    assert.ok(!["completed", "failed", "expired", "cancelled"].includes(batch.status), `${batch.status}, not ${states}`);
    await pause(50);
    batch = await client.batches.retrieve(batch.id);
  }
  return batch;
}

const line = (custom_id, content) => ({
  custom_id,
  method: "POST",
  url: "/v1/chat/completions",
  body: { model: "echo/chat", messages: [{ role: "user", content }] },
});

async function upload(lines) {
  const text = lines.map((each) => JSON.stringify(each) + "\n").join("");
  return client.files.create({ file: await toFile(Buffer.from(text), "in.jsonl"), purpose: "batch" });
}

async function start(lines, completion_window = "24h") {
  const { id } = await upload(lines);
  return client.batches.create({ input_file_id: id, endpoint: "/v1/chat/completions", completion_window });
}

async function results(id) {
  const text = await (await client.files.content(id)).text();
  return new Map(text.trimEnd().split("\n").map(JSON.parse).map((each) => [each.custom_id, each]));
}

const steps = {
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.ok(ids.includes("echo/chat") && ids.includes("hash-embed"), ids);
    assert.equal((await client.models.retrieve("echo/chat")).id, "echo/chat");
    await raises(OpenAI.NotFoundError, () => client.models.retrieve("nobody"));
  },
  async chat() {
    const messages = [{ role: "user", content: "Grüße" }];
    const answer = await client.chat.completions.create({ model: "echo/chat", messages });
    assert.equal(answer.choices[0].message.content, "echo: Grüße");
    await raises(OpenAI.NotFoundError, () => client.chat.completions.create({ model: "nobody", messages }));
    await raises(OpenAI.BadRequestError, () => client.chat.completions.create({ model: "echo/chat", messages: 5 }));
  },
  async chat_stream() {
    const messages = [{ role: "user", content: "bit by bit" }];
    const stream = await client.chat.completions.create({ model: "echo/chat", messages, stream: true });
    let said = "";
    for await (const chunk of stream) said += chunk.choices[0]?.delta?.content ?? "";
    assert.equal(said, "echo: bit by bit");
  },
  async embeddings() {
    const asked = { model: "hash-embed", input: ["the quick brown fox", "jumps"] };
    const packed = await client.embeddings.create(asked);
    const plain = await client.embeddings.create({ ...asked, encoding_format: "float" });
    const bits = (answer) => answer.data.map((item) => Buffer.from(new Float32Array(item.embedding).buffer).toString("hex"));
    assert.deepEqual(bits(packed), bits(plain));
  },
  async too_many_calls() {
    // Four are let in, and held; whoever comes fifth is told so.
    const ask = (of, model, content) =>
      of.chat.completions.create({ model, messages: [{ role: "user", content }] });
    const impatient = client.withOptions({ maxRetries: 0 });
    const held = Array.from({ length: 5 }, () => ask(impatient, "narrow", "hold door"));
    const refusal = await Promise.any(held.map((call) => call.then(() => Promise.reject(), (error) => error)));
    assert.ok(refusal instanceof OpenAI.RateLimitError, refusal);
    await raises(OpenAI.RateLimitError, () => ask(impatient, "narrow", "one more"));
    // The client's own retry comes when it was told to, and is let in, since there is room by then.
    const seen = [];
    const see = async (url, init) => {
      const asked = Date.now();
      const reply = await fetch(url, init);
      seen.push({ asked, told: Date.now(), status: reply.status, after: Number(reply.headers.get("retry-after")) });
      if (reply.status === 429) {
        await ask(client, "echo/chat", "release door");
        await Promise.allSettled(held);
      }
      return reply;
    };
    const patient = client.withOptions({ fetch: see });
    assert.equal((await ask(patient, "narrow", "at last")).choices[0].message.content, "echo: at last");
    assert.deepEqual(seen.map((each) => each.status), [429, 200]);
    // Timers may be a millisecond early.
    assert.ok(seen[0].after >= 1 && seen[1].asked - seen[0].told >= seen[0].after * 1000 - 5, JSON.stringify(seen));
  },
  async files() {
    const made = await upload([line("a", "x")]);
    assert.equal((await client.files.retrieve(made.id)).bytes, made.bytes);
    const listed = [];
    for await (const file of client.files.list({ limit: 2 })) listed.push(file.id);
    assert.ok(listed.includes(made.id));
    assert.equal((await client.files.delete(made.id)).deleted, true);
    await raises(OpenAI.NotFoundError, () => client.files.retrieve(made.id));
  },
  async batch_completes() {
    const batch = await wait(await start([line("a", "one"), line("b", "two")]), "completed");
    assert.deepEqual({ ...batch.request_counts }, { total: 2, completed: 2, failed: 0 });
    const found = await results(batch.output_file_id);
    assert.equal(found.get("b").response.body.choices[0].message.content, "echo: two");
    assert.equal(batch.model, "echo/chat");
    assert.equal(batch.usage.input_tokens, 6);
    await raises(OpenAI.ConflictError, () => client.batches.cancel(batch.id));
  },
  async batch_is_cancelled() {
    const batch = await wait(await start([line("slow", "sleep 600")]), "in_progress");
    await client.batches.cancel(batch.id);
    const over = await wait(await client.batches.retrieve(batch.id), "cancelled");
    assert.equal((await results(over.error_file_id)).get("slow").error.code, "batch_cancelled");
  },
  async batch_expires() {
    const batch = await wait(await start([line("slow", "sleep 600")], "4s"), "expired");
    assert.equal((await results(batch.error_file_id)).get("slow").error.code, "batch_expired");
    await raises(OpenAI.NotFoundError, () => client.batches.retrieve("batch_nobody"));
  },
};

let failed = 0;
for (const [name, step] of Object.entries(steps)) {
  if (process.argv.length > 3 && !process.argv.slice(3).includes(name)) continue;
  try {
    await step();
    console.log(`passed ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name}: ${error?.constructor?.name}: ${error?.message}`);
  }
}
process.exit(failed > 0 ? 1 : 0);
