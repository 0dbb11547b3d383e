"""What the Python clients must see, each used as its own documentation has it, without changes.

Run by clients.py with the Python that has them. Every check gets the daemon's address and the right
vectors; a result is one JSON line on standard output.
"""

import asyncio
import importlib.metadata
import json
import math
import os
import struct
import sys
import threading
import traceback

KEY = "conformance-key"
CASES = []


def case(package: str, what: str):
  """Registers a check under the package that it is about."""
  def register(function):
    CASES.append((package, what, function))
    return function
  return register


class Given:
  """What every check gets."""

  def __init__(self, given: dict) -> None:
    self.base, self.narrow = given["address"], given["narrow_address"]
    self.model, self.texts, self.vectors = given["model"], given["texts"], given["vectors"]
    self.v1 = f"{self.base}/v1"

  def openai(self, cls=None, base: str | None = None, key: str = KEY, retries: int = 0):
    import openai
    return (cls or openai.OpenAI)(base_url=base or self.v1, api_key=key, max_retries=retries)


def bits(vector) -> bytes:
  """A vector as the bytes of its F32 values: numbers are written so that they read back as those."""
  return struct.pack(f"<{len(vector)}f", *vector)


def assert_same(found, expected) -> None:
  found = list(found)
  assert len(found) == len(expected), f"{len(found)} vectors instead of {len(expected)}"
  for number, (one, other) in enumerate(zip(found, expected)):
    assert bits(one) == bits(other), f"vector {number} differs"


def refused(error_class, call, status: int, code: str | None = None):
  try:
    call()
  except error_class as error:
    assert type(error) is error_class, f"{type(error)} is not {error_class}"
    assert error.status_code == status, error
    assert code is None or error.code == code, f"code {error.code}: {error}"
    return error
  raise AssertionError(f"no {error_class.__name__}")


@case("openai", "vectors of texts, base64 by default")
def _(given: Given) -> None:
  answer = given.openai().embeddings.create(model=given.model, input=given.texts)
  assert_same([row.embedding for row in answer.data], given.vectors)
  assert [row.index for row in answer.data] == list(range(len(given.texts)))
  assert answer.model == given.model and answer.object == "list"
  assert answer.usage.total_tokens == answer.usage.prompt_tokens > len(given.texts)


@case("openai", "one text, and floats")
def _(given: Given) -> None:
  client = given.openai()
  for options in ({}, {"encoding_format": "float"}, {"user": "u", "model": f"org/{given.model}"}):
    options = {"model": given.model, **options}
    answer = client.embeddings.create(input=given.texts[0], **options)
    assert_same([row.embedding for row in answer.data], given.vectors[:1])
  raw = client.embeddings.create(model=given.model, input="a", encoding_format="base64")
  assert isinstance(raw.data[0].embedding, str), "asked for, base64 stays as it is"


@case("openai", "the asynchronous client, many at once")
def _(given: Given) -> None:
  import openai

  async def run() -> None:
    async with given.openai(openai.AsyncOpenAI) as client:
      ask = lambda text: client.embeddings.create(model=given.model, input=text)
      answers = await asyncio.gather(*(ask(text) for text in given.texts * 20))
    assert_same([answer.data[0].embedding for answer in answers], given.vectors * 20)

  asyncio.run(run())


@case("openai", "dimensions")
def _(given: Given) -> None:
  for dimensions in (1, 64, len(given.vectors[0])):
    answer = given.openai().embeddings.create(model=given.model, input=given.texts,
                                              dimensions=dimensions)
    for row, whole in zip(answer.data, given.vectors):
      length = math.sqrt(sum(value * value for value in whole[:dimensions]))
      assert len(row.embedding) == dimensions
      for found, value in zip(row.embedding, whole):
        assert abs(found - value / length) < 1e-6


@case("openai", "models")
def _(given: Given) -> None:
  client = given.openai()
  assert [model.id for model in client.models.list()] == [given.model]
  assert client.models.retrieve(given.model).object == "model"


@case("openai", "each error is of its class")
def _(given: Given) -> None:
  import openai
  client = given.openai()
  create = lambda **options: lambda: client.embeddings.create(
    **{"model": given.model, "input": "a", **options})
  wrong = given.openai(key="wrong").embeddings
  refused(openai.AuthenticationError, lambda: wrong.create(model=given.model, input="a"), 401,
          "invalid_api_key")
  refused(openai.NotFoundError, create(model="other"), 404, "model_not_found")
  error = refused(openai.BadRequestError, create(input=""), 400, "empty_input")
  assert error.param == "input" and error.type == "invalid_request_error", error
  assert error.request_id, "the id of the request is known"
  refused(openai.BadRequestError, create(dimensions=100_000), 400, "invalid_option")
  refused(openai.BadRequestError, create(input=[[10**6]]), 400, "token_id")
  refused(openai.BadRequestError, create(extra_body={"truncate": "NONE"}), 400)
  refused(openai.BadRequestError, create(input=["a"] * 2049), 400)
  refused(openai.APIStatusError, create(input="a" * 9_000_000), 413, "body_too_large")
  lost = lambda: client.get("/nothing", cast_to=object)
  refused(openai.NotFoundError, lost, 404, "not_found")


@case("openai", "no room: RateLimitError, and with retries an answer")
def _(given: Given) -> None:
  import openai
  narrow = f"{given.narrow}/v1"
  many = [f"{text} {number}" for number in range(100) for text in given.texts]
  bulk = {}

  def fill() -> None:
    bulk["answer"] = given.openai(base=narrow).embeddings.create(model=given.model, input=many)

  filling = threading.Thread(target=fill)
  filling.start()
  error = None
  while filling.is_alive() and error is None:
    try:
      given.openai(base=narrow).embeddings.create(model=given.model, input="a")
    except openai.RateLimitError as refusal:
      error = refusal
  assert error is not None, "never refused while the gate was full"
  assert error.status_code == 429 and error.code == "overloaded", error
  assert error.type == "rate_limit_error" and int(error.response.headers["retry-after"]) >= 1
  patient = given.openai(base=narrow, retries=60)
  answer = patient.embeddings.create(model=given.model, input=given.texts[0])
  assert_same([answer.data[0].embedding], given.vectors[:1])
  filling.join()
  assert len(bulk["answer"].data) == len(many), "who was let in has all"


@case("huggingface_hub", "InferenceClient.feature_extraction")
def _(given: Given) -> None:
  from huggingface_hub import InferenceClient
  for url in (given.base, f"{given.base}/embed"):
    client = InferenceClient(model=url, token=KEY)
    found = client.feature_extraction(given.texts[0], normalize=True, truncate=True)
    assert found.dtype.name == "float32" and found.shape == (1, len(given.vectors[0]))
    assert_same(found, given.vectors[:1])
    left = client.feature_extraction(given.texts[1], truncation_direction="Left")
    assert_same(left, given.vectors[1:2])


@case("huggingface_hub", "AsyncInferenceClient")
def _(given: Given) -> None:
  from huggingface_hub import AsyncInferenceClient

  async def run() -> None:
    client = AsyncInferenceClient(model=given.base, token=KEY)
    ask = (client.feature_extraction(text) for text in given.texts * 5)
    found = await asyncio.gather(*ask)
    assert_same([rows[0] for rows in found], given.vectors * 5)

  asyncio.run(run())


@case("huggingface_hub", "errors are HfHubHTTPError with the reason")
def _(given: Given) -> None:
  from huggingface_hub import InferenceClient
  from huggingface_hub.errors import HfHubHTTPError
  for token, text, status in (("wrong", "a", 401), (KEY, "", 400)):
    try:
      InferenceClient(model=given.base, token=token).feature_extraction(text)
    except HfHubHTTPError as error:
      assert error.response.status_code == status, error
      assert error.response.json()["error_type"] in ("Validation", "Empty")
    else:
      raise AssertionError("no error")


@case("langchain-openai", "OpenAIEmbeddings with texts")
def _(given: Given) -> None:
  from langchain_openai import OpenAIEmbeddings
  embeddings = OpenAIEmbeddings(model=given.model, base_url=given.v1, api_key=KEY,
                                check_embedding_ctx_length=False)
  assert_same(embeddings.embed_documents(given.texts), given.vectors)
  assert_same([embeddings.embed_query(given.texts[1])], given.vectors[1:2])
  assert_same(asyncio.run(embeddings.aembed_documents(given.texts)), given.vectors)


@case("langchain-openai", "token ids of another vocabulary are refused where they can be told")
def _(given: Given) -> None:
  import openai
  from langchain_openai import OpenAIEmbeddings
  # Left as it is, it sends ids of cl100k_base. The file with them comes along with llama-index.
  import llama_index.core
  folder = os.path.join(os.path.dirname(llama_index.core.__file__), "_static", "tiktoken_cache")
  os.environ["TIKTOKEN_CACHE_DIR"] = folder
  embeddings = OpenAIEmbeddings(model=given.model, base_url=given.v1, api_key=KEY)
  error = refused(openai.BadRequestError, lambda: embeddings.embed_documents(given.texts), 400,
                  "token_id")
  assert "send the text" in error.message, error


@case("langchain-huggingface", "HuggingFaceEndpointEmbeddings")
def _(given: Given) -> None:
  from langchain_huggingface import HuggingFaceEndpointEmbeddings
  from huggingface_hub import AsyncInferenceClient, InferenceClient
  # It takes names of the hub only; a server of one's own is reached by giving it the client.
  embeddings = HuggingFaceEndpointEmbeddings(huggingfacehub_api_token=KEY)
  embeddings.client = InferenceClient(model=given.base, token=KEY)
  embeddings.async_client = AsyncInferenceClient(model=given.base, token=KEY)
  assert_same(embeddings.embed_documents(given.texts), given.vectors)
  assert_same([embeddings.embed_query(given.texts[1])], given.vectors[1:2])
  assert_same(asyncio.run(embeddings.aembed_documents(given.texts)), given.vectors)


@case("llama-index-embeddings-openai-like", "OpenAILikeEmbedding")
def _(given: Given) -> None:
  from llama_index.embeddings.openai_like import OpenAILikeEmbedding
  embeddings = OpenAILikeEmbedding(model_name=given.model, api_base=given.v1, api_key=KEY)
  assert_same(embeddings.get_text_embedding_batch(given.texts), given.vectors)
  assert_same([embeddings.get_query_embedding(given.texts[1])], given.vectors[1:2])
  assert_same(asyncio.run(embeddings.aget_text_embedding_batch(given.texts)), given.vectors)


@case("llama-index-embeddings-text-embeddings-inference", "TextEmbeddingsInference")
def _(given: Given) -> None:
  from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
  embeddings = TextEmbeddingsInference(model_name=given.model, base_url=given.base,
                                       auth_token=KEY, timeout=60)
  assert_same(embeddings.get_text_embedding_batch(given.texts), given.vectors)
  assert_same(asyncio.run(embeddings.aget_text_embedding_batch(given.texts)), given.vectors)


def main() -> None:
  given = Given(json.load(sys.stdin))
  for package, what, function in CASES:
    result = {"client": f"{package} {importlib.metadata.version(package)}", "what": what}
    try:
      function(given)
      result["error"] = None
    except Exception:  # Whatever a client throws is its result.
      result["error"] = traceback.format_exc()
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
  main()
