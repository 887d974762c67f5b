"""Single requests to the page's application, in this process."""

from starlette.testclient import TestClient

from convolab.app.safety import AllowedHosts, Tokens
from convolab.app.server import AppState, build_app

HOST = "127.0.0.1:8360"
ORIGIN = {"Origin": f"http://{HOST}"}


def client_of(state: AppState, host: str = "127.0.0.1", tokens: Tokens | None = None) -> TestClient:
    """Requests to an application that nobody serves; the queue stands still."""
    app = build_app(state, AllowedHosts(host, 8360), tokens)
    return TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False)
