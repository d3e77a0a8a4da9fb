"""A chat model that obeys: what the last message says decides what happens. Prints its address, then serves.

    sleep 30      answers after so many seconds
    hold NAME     answers when somebody has said "release NAME"
    release NAME  answers
    status 400    refuses so
    anything      is said back, "echo: anything"
"""

import collections
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


gates = collections.defaultdict(threading.Event)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not isinstance(request["messages"], list):
            return self.refuse(400, "messages must be a list")
        said = request["messages"][-1]["content"]
        order, _, number = said.partition(" ")
        if order == "status":
            return self.refuse(int(number), "as you wish")
        if order == "sleep":
            time.sleep(float(number))
        if order == "hold":
            gates[number].wait()
        if order == "release":
            gates[number].set()
        if request.get("stream"):
            return self.stream(request, said)
        message = {"role": "assistant", "content": f"echo: {said}"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        self.answer(200, self.completion(request, "chat.completion") | {"choices": choices, "usage": usage})

    def completion(self, request, kind):
        return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": request["model"]}

    def stream(self, request, said):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        deltas = [({"role": "assistant", "content": ""}, None), ({"content": "echo: "}, None), ({"content": said}, None), ({}, "stop")]
        for delta, reason in deltas:
            choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
            chunk = self.completion(request, "chat.completion.chunk") | {"choices": choices}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")

    def refuse(self, status, message):
        self.answer(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
server.serve_forever()
