"""A proxy that lets requests through and loses answers, as a load balancer does that is restarted."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


class LossyProxy:
    """Answers `lost` POSTs and PUTs with a 502, or with a closed connection, once the service has answered."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.lost = 1
        self.close = False
        self.seen = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = requests.request(
                    self.command,
                    proxy.upstream + self.path,
                    headers={name: value for name, value in self.headers.items() if name != "Host"},
                    data=body,
                    allow_redirects=False,
                    timeout=60,
                )
                proxy.seen.append((self.command, answer.status_code, answer.headers.get("Idempotent-Replayed")))
                if self.command != "GET" and proxy.lost:
                    proxy.lost -= 1
                    self.close_connection = True
                    if not proxy.close:
                        self.send_response(502)
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                    return
                self.send_response(answer.status_code, answer.reason)
                for name in ("Content-Type", "Location"):
                    if name in answer.headers:
                        self.send_header(name, answer.headers[name])
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = do_PUT = forward

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
