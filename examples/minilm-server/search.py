"""The rows of a file of vectors that mean most nearly what a question says.

    python3 search.py vectors.jsonl texts.jsonl 'the same name is declared two times'

`vectors.jsonl` is what `sheaf run --embed` wrote, `texts.jsonl` the rows that it read: row 1 is line 1.
"""

import json
import sys
import urllib.request

import numpy as np

URL = "http://127.0.0.1:8002/v1/embeddings"
MODEL = "all-minilm-l6-v2"


def embed(text):
    body = json.dumps({"model": MODEL, "input": text}).encode()
    with urllib.request.urlopen(urllib.request.Request(URL, body)) as answer:
        return np.array(json.load(answer)["data"][0]["embedding"], dtype=np.float32)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    vectors, texts, question = sys.argv[1:]
    rows = [row for row in map(json.loads, open(vectors)) if row["status"] == "ok"]
    lines = open(texts).read().splitlines()
    # All vectors have length one, so their products are the cosines.
    nearness = np.array([json.loads(row["output"]) for row in rows], dtype=np.float32) @ embed(question)
    for at in np.argsort(-nearness)[:3]:
        text = json.loads(lines[rows[at]["row"] - 1])["output"]
        print(f"{nearness[at]:.3f}  row {rows[at]['row']:>3}  {' '.join(text.split())[:90]}")


main()
