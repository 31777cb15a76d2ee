"""The command `annotate`: the annotation server, from photos to the open page."""

import os
import webbrowser
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.checks import check_dataset_place, check_photos, find_model, workspace_place
from flows.cli.options import DEFAULT_DATASET, DatasetUri, RayAddress, WorkspacePlace
from flows.cli.stopping import stopping
from flows.progress import log
from storage.home import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stages.annotator.ahead import Embeddings, ToEncode
    from stages.annotator.server import Server


def annotate(
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Photos or folders to ingest first.", show_default="none")
    ] = None,
    dataset: DatasetUri = DEFAULT_DATASET,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = 8765,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Model that answers clicks, or promoted. Repeatable: the first is the default.",
            show_default="seed",
        ),
    ] = None,
    workspace: WorkspacePlace = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder of embeddings.", show_default="~/.cache/gigamask/embeddings")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            help="Ray workers that encode the images of open rounds before they are claimed.",
            min=1,
            show_default="none: the server encodes an image once it is claimed",
        ),
    ] = None,
    ray_address: RayAddress = None,
    team: Annotated[bool, typer.Option("--team", help="Accounts with passwords and roles.")] = False,
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", help="File of the TLS certificate.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="File of the certificate's key.")] = None,
    allow_plain_http: Annotated[
        bool, typer.Option("--allow-plain-http", help="Serve other machines without TLS, as behind a proxy.")
    ] = False,
    allow_no_accounts: Annotated[
        bool, typer.Option("--allow-no-accounts", help="Serve other machines without accounts.")
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
) -> None:
    """Start the annotation server and print its link. With PHOTOS, ingest them and ask about them.

    The page opens after the first photos; the others are ingested while people work.

    Without --team there is one account and only this machine reaches the server. Ctrl+C and SIGTERM stop it within ten
    seconds; nothing is lost.
    """
    at = f":{port}" if port else ", at a free port"
    log(f"annotate: {dataset} on http{'s' if tls_certificate else ''}://{host}{at}")

    # Refuse wrong use before anything heavy is imported
    models = model or ["seed"]
    if photos:
        check_photos(photos)
    check_dataset_place(dataset)
    for name in models:
        find_model(name, dataset)
    from dataclasses import replace

    from flows.cli.photos import PhotosToTasks
    from stages.annotator.serve import ServeConfig, check_exposure, listen, open_server, serve
    from storage.dataset import Dataset
    from storage.workspace.workspace import Workspace

    config = ServeConfig(
        host=host,
        port=port,
        mode="team" if team else "laptop",
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        allow_plain_http=allow_plain_http,
        allow_no_accounts=allow_no_accounts,
    )
    check_exposure(config)
    place = workspace_place(dataset, workspace)

    # Open everything, then listen
    with stopping("stopped; the same command continues") as stop:
        opened = Dataset.open_or_create(dataset) if photos else Dataset.open(dataset)
        with Workspace.open(place) as space, listen(config) as listening:
            config = replace(config, port=listening.getsockname()[1])
            tasks = PhotosToTasks(opened, space, photos or [])
            tasks.begin()
            with open_server(opened, space, models, cache or _default_cache(), config) as server:
                token = server.access.link_token
                link = f"{config.url}/link?token={token}" if token else config.url
                print(link, flush=True)
                log("open this link in a browser on this machine; it works once" if token else "log in there")
                if open_page and not webbrowser.open(link):
                    log("no browser was found to open the link in")
                with tasks.in_background(), _encoding_ahead(server, models, workers, ray_address):
                    serve(server, config, listening, when_told_to_stop=stop.begin)


@contextmanager
def _encoding_ahead(
    server: "Server", models: list[str], workers: int | None, ray_address: str | None
) -> "Iterator[None]":
    """Have a pool encode images ahead of the queue during the block, where a pool is asked for."""
    if workers is None and ray_address is None:
        yield
        return
    from stages.annotator.ahead import AheadOfQueue, PictureEncoder
    from stages.cluster.calls import call_on_pool
    from stages.cluster.pool import PoolConfig

    make_worker = partial(PictureEncoder, server.dataset.uri, models)
    pool = PoolConfig(address=ray_address, workers=workers)

    def encode(wanted: "Sequence[ToEncode]") -> "Iterator[tuple[ToEncode, Embeddings | Exception]]":
        log(f"ahead: {len(wanted)} images to encode")
        return call_on_pool(make_worker, wanted, pool)

    sessions = server.sessions
    ahead = AheadOfQueue(server.dataset, server.workspace, sessions.models, sessions.encoder.cache, encode)
    ahead.start()
    try:
        yield
    finally:
        ahead.close()


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base) / "gigamask" / "embeddings" if base else cache_folder("embeddings")
