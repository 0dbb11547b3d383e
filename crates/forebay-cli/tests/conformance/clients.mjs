// What the clients for Node must see, used as their documentation has it, without changes. Run by
// clients.py, which gives the daemon's address and the right vectors on standard input; a result is
// one JSON line on standard output.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const KEY = "conformance-key";
const given = JSON.parse(readFileSync(0, "utf8"));
const installed = new URL("./node_modules/openai/package.json", import.meta.url);
const { version } = JSON.parse(readFileSync(installed, "utf8"));

function client(more = {}) {
  return new OpenAI({ baseURL: `${given.address}/v1`, apiKey: KEY, maxRetries: 0, ...more });
}

function assertSame(found, expected) {
  assert.equal(found.length, expected.length);
  found.forEach((vector, number) => {
    const bits = (values) => Buffer.from(new Float32Array(values).buffer).toString("hex");
    assert.equal(bits(vector), bits(expected[number]), `vector ${number}`);
  });
}

const rows = (answer) => answer.data.map((row) => Array.from(row.embedding));
const { model, texts, vectors } = given;

const cases = {
  "vectors of texts, base64 by default": async () => {
    const answer = await client().embeddings.create({ model, input: texts });
    assertSame(rows(answer), vectors);
    assert.equal(answer.model, model);
    assert.ok(answer.usage.prompt_tokens > texts.length);
  },
  "floats, one text, dimensions": async () => {
    const options = { model, input: texts[0], encoding_format: "float" };
    assertSame(rows(await client().embeddings.create(options)), vectors.slice(0, 1));
    const short = await client().embeddings.create({ ...options, dimensions: 64 });
    assert.equal(short.data[0].embedding.length, 64);
  },
  "many at once": async () => {
    const one = client();
    const all = [...texts, ...texts, ...texts, ...texts];
    const answers = await Promise.all(
      all.map((input) => one.embeddings.create({ model, input })),
    );
    assertSame(answers.flatMap(rows), [...vectors, ...vectors, ...vectors, ...vectors]);
  },
  models: async () => {
    const ids = [];
    for await (const one of client().models.list()) ids.push(one.id);
    assert.deepEqual(ids, [model]);
  },
  "each error is of its class": async () => {
    const create = (options, more) =>
      client(more).embeddings.create({ model, input: "a", ...options });
    for (const [call, kind, status, code] of [
      [() => create({}, { apiKey: "wrong" }), OpenAI.AuthenticationError, 401, "invalid_api_key"],
      [() => create({ model: "other" }), OpenAI.NotFoundError, 404, "model_not_found"],
      [() => create({ input: "" }), OpenAI.BadRequestError, 400, "empty_input"],
      [() => create({ dimensions: 100000 }), OpenAI.BadRequestError, 400, "invalid_option"],
    ]) {
      await assert.rejects(call, (error) => {
        assert.ok(error instanceof kind, `${error.constructor.name} is not ${kind.name}`);
        assert.equal(error.status, status);
        assert.equal(error.code, code);
        return true;
      });
    }
  },
};

for (const [what, run] of Object.entries(cases)) {
  const result = { client: `openai (npm) ${version}`, what, error: null };
  try {
    await run();
  } catch (error) {
    result.error = String(error?.stack ?? error);
  }
  console.log(JSON.stringify(result));
}
