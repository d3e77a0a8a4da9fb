"""A sentence embedder in numpy: the forward pass of a BERT encoder, the mean over its tokens, length one.

It reads a model directory as sentence-transformers writes it: config.json, model.safetensors, tokenizer.json, and
sentence_bert_config.json for the longest input. Float32 on the processor; numpy's BLAS does the work.
"""

import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

# Texts that go through the model together: more costs memory and gains nothing on a processor.
BATCH = 16


class Layer:
    """One layer's weights; matrices stand as `x @ w` wants them."""

    def __init__(self, weights, prefix):
        def dense(name):
            return np.ascontiguousarray(weights[f"{prefix}.{name}.weight"].T), weights[f"{prefix}.{name}.bias"]

        def norm(name):
            return weights[f"{prefix}.{name}.weight"], weights[f"{prefix}.{name}.bias"]

        attention = [dense(f"attention.self.{name}") for name in ("query", "key", "value")]
        self.qkv = np.concatenate([w for w, _ in attention], axis=1), np.concatenate([b for _, b in attention])
        self.out, self.out_norm = dense("attention.output.dense"), norm("attention.output.LayerNorm")
        self.up, self.down = dense("intermediate.dense"), dense("output.dense")
        self.down_norm = norm("output.LayerNorm")


class Embedder:
    """A model, ready. `embed` may be called from several threads at once."""

    def __init__(self, directory):
        directory = Path(directory)
        config = json.loads((directory / "config.json").read_text())
        if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
            raise ValueError(f"{directory}: not a BERT with gelu, which is all that this knows")
        weights = {name.removeprefix("bert."): w.astype(np.float32) for name, w in load_file(directory / "model.safetensors").items()}
        self.heads, self.epsilon = config["num_attention_heads"], config["layer_norm_eps"]
        self.dimensions = config["hidden_size"]
        self.words = weights["embeddings.word_embeddings.weight"]
        # All tokens are of the first sentence.
        self.places = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        self.norm = weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"]
        self.layers = [Layer(weights, f"encoder.layer.{n}") for n in range(config["num_hidden_layers"])]
        longest = directory / "sentence_bert_config.json"
        limit = json.loads(longest.read_text())["max_seq_length"] if longest.exists() else config["max_position_embeddings"]
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.tokenizer.enable_truncation(min(limit, config["max_position_embeddings"]))
        self.tokenizer.no_padding()

    def embed(self, texts):
        """Vectors of length one, a row a text, and the number of tokens read. What is too long is cut, as the model was trained."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        # Texts of like length together: the shorter ones are padded to the longest of their batch.
        order = sorted(range(len(ids)), key=lambda at: len(ids[at]))
        vectors = np.empty((len(ids), self.dimensions), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            vectors[chosen] = self._forward([ids[at] for at in chosen])
        return vectors, sum(map(len, ids))

    def _forward(self, ids):
        rows, length = len(ids), max(map(len, ids))
        tokens, mask = np.zeros((rows, length), dtype=np.int64), np.zeros((rows, length), dtype=np.float32)
        for row, of_row in enumerate(ids):
            tokens[row, : len(of_row)] = of_row
            mask[row, : len(of_row)] = 1
        x = normed(self.words[tokens] + self.places[:length], self.norm, self.epsilon)
        # What is padding is looked at by nobody.
        unseen = (1 - mask)[:, None, None, :] * np.float32(-1e9)
        for layer in self.layers:
            x = normed(x + self._attention(layer, x, unseen), layer.out_norm, self.epsilon)
            x = normed(x + dense(gelu(dense(x, layer.up)), layer.down), layer.down_norm, self.epsilon)
        mean = (x * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)

    def _attention(self, layer, x, unseen):
        rows, length, width = x.shape
        each = width // self.heads
        # rows, heads, tokens, width of a head
        split = dense(x, layer.qkv).reshape(rows, length, 3, self.heads, each).transpose(2, 0, 3, 1, 4)
        query, key, value = split
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(math.sqrt(each)) + unseen
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        seen = (scores / scores.sum(axis=-1, keepdims=True)) @ value
        return dense(seen.transpose(0, 2, 1, 3).reshape(rows, length, width), layer.out)


def dense(x, of):
    weight, bias = of
    return x @ weight + bias


def normed(x, of, epsilon):
    weight, bias = of
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(epsilon)) * weight + bias


def gelu(x):
    return x * np.float32(0.5) * (1 + erf(x * np.float32(math.sqrt(0.5))))


def erf(x):
    """By the rational approximation 7.1.26 of Abramowitz and Stegun: off by 1.5e-7 at most, which is float32's own."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return np.copysign(1 - poly * np.exp(-x * x), x).astype(np.float32)
