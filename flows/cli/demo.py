"""The command `demo`: clicks, boxes and everything on one photo at a time; nothing is stored."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.checks import check_model, check_photos
from flows.cli.stopping import stopping
from flows.progress import log


def demo(
    photo: Annotated[
        Path | None, typer.Argument(help="Photo that is shown first.", show_default="none: visitors bring their own")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = 8766,
    model: Annotated[str, typer.Option("--model", help="Model that answers clicks.")] = "seed",
    proxy: Annotated[
        str,
        typer.Option("--proxy", help="Address of a proxy in front, which names the visitors.", show_default="none"),
    ] = "",
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", help="File of the TLS certificate.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="File of the certificate's key.")] = None,
    allow_plain_http: Annotated[
        bool, typer.Option("--allow-plain-http", help="Serve other machines without TLS, as behind a proxy.")
    ] = False,
) -> None:
    """Show what the model can do: click, box, everything, one photo at a time. Nothing is stored, nobody logs in.

    Photos stay in memory until others push them out. Sizes and rates are limited for each address. Ctrl+C stops it.
    """
    at = f":{port}" if port else ", at a free port"
    log(f"demo: {model} on http{'s' if tls_certificate else ''}://{host}{at}")

    # Refuse wrong use before anything heavy is imported
    if photo is not None:
        check_photos([photo])
    check_model(model)
    from dataclasses import replace

    from stages.annotator.demo.config import DemoConfig, check_config
    from stages.annotator.demo.serve import open_demo, serve_demo
    from stages.annotator.serve import ServeConfig, listen
    from stages.ingest.files import read_file

    config = DemoConfig(
        host=host,
        port=port,
        proxy=proxy,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        allow_plain_http=allow_plain_http,
    )
    check_config(config)
    data = read_file(photo, config.max_file_bytes) if photo is not None else None

    # Listen, then load: who opens the address at once waits for the model
    with (
        stopping("stopped; nothing was stored") as stop,
        listen(ServeConfig(host=host, port=port)) as listening,
    ):
        config = replace(config, port=listening.getsockname()[1])
        with open_demo(model, data, config) as opened:
            print(config.url, flush=True)
            serve_demo(opened, config, listening, when_told_to_stop=stop.begin)
