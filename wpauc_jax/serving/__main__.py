"""The command line: `wpauc serve EXPORT`, the folder that `wpauc export` wrote; or a run's work directory."""

import argparse
import os
import pathlib
import socket
import sys
from collections.abc import Sequence

_GRACE = 30  # seconds in which what was accepted is answered after SIGTERM


def main(arguments: Sequence[str]) -> int:
    """Serves until SIGTERM or Ctrl-C; returns 0, or 1 where it cannot begin."""
    args = _parser().parse_args(arguments[1:])
    try:
        import uvicorn

        from wpauc_jax.serving.app import Limits, make_app
        from wpauc_jax.serving.samples import sample_users
    except ModuleNotFoundError as error:
        print(f"error: serving needs {error.name}: pip install 'wpauc_jax[serve]'", file=sys.stderr)
        return 1
    from wpauc_jax.api import Recommender
    from wpauc_jax.config import ConfigError
    from wpauc_jax.data.errors import DataError
    from wpauc_jax.data.fetch import default_cache
    from wpauc_jax.models import PretrainedError
    from wpauc_jax.runtime.programs import keep_programs
    from wpauc_jax.training.storage import CheckpointError

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    problem = keep_programs(default_cache() / "programs")
    if problem:
        say(f"warning: {problem}")
    try:
        listener = _listener(args.host, args.port)
        recommender = Recommender.load(args.path, say=say)
        samples = sample_users(args.path, say=say)
    except (ConfigError, DataError, PretrainedError, CheckpointError, OSError) as error:
        say(f"error: {error}")
        return 1
    limits = Limits(most_k=args.most_k, room=args.room, seconds=args.seconds)
    app = make_app(recommender.served, limits, samples=samples, say=say)
    host, port = listener.getsockname()[:2]
    say(f"http://{host}:{port}/ answers for {len(recommender.items):,} items; compiling")
    settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE)
    uvicorn.Server(settings).run(sockets=[listener])
    return 0


def _listener(host: str, port: int) -> socket.socket:
    """Raises OSError, with what to do, where the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise OSError(
            f"{host}:{port} cannot be listened to ({error.strerror or error}); give another --port"
        ) from error
    return listener


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wpauc serve", description="Answers histories over HTTP, with a page at /.")
    parser.add_argument("path", type=pathlib.Path, metavar="EXPORT", help="an export folder, or a run's work directory")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; this machine alone by default")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument("--most_k", type=int, default=100, help="items of the longest list")
    parser.add_argument("--room", type=int, default=4096, help="users who may wait; more are told to try again")
    parser.add_argument("--seconds", type=float, default=10.0, help="until an answer; then the client is told so")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
