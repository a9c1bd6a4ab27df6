"""The page: four tabs, on public names only, offline with the bundled checkpoint."""

import os
import signal
import threading
from typing import Any

import gradio as gr
import torch

from incontext import InputError
from incontext.web.jobs import Jobs
from incontext.web.limits import MAX_AGE, MAX_JOBS, working_folder
from incontext.web.models import Models
from incontext.web.page import doctor, endpoints, shortcuts, tuning, videos
from incontext.web.page.appearance import appearance
from incontext.web.page.images import tab as images
from incontext.web.page.images.picking import Sam
from incontext.web.page.session import Session

TITLE = "incontext: show a few masks, get the rest"
INTRO = """# incontext
Paint what you mean in one picture; get it in all the others."""


def build(models: Models, jobs: Jobs, sam: str | None = None) -> gr.Blocks:
    """Lay out the page and connect its events."""
    checkpoints = models.names
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(MAX_AGE // 6, MAX_AGE)
    ) as app:
        endpoints.build(models, jobs)  # first, so that they get the plain names
        gr.HTML(shortcuts.help_page(), elem_id="keys")
        gr.Markdown(INTRO)
        session = gr.State(None, time_to_live=MAX_AGE, delete_callback=_close)
        checkpoint = gr.Dropdown(
            checkpoints, value=checkpoints[0], label="Checkpoint", elem_id="checkpoint",
            visible=len(checkpoints) > 1,
        )  # fmt: skip
        with gr.Tabs():
            with gr.Tab("Images", id="images"):
                image_prompt = images.build(app, models, jobs, session, checkpoint, sam)
            with gr.Tab("Video", id="video", render_children=True):
                video_prompt = videos.build(models, jobs, session, checkpoint)
            with gr.Tab("Tune", id="tune", render_children=True):
                tuning.build(models, jobs, session, checkpoint, [image_prompt, video_prompt])
            with gr.Tab("Doctor", id="doctor", render_children=True):
                doctor.build(models, jobs, session, checkpoint)
        with gr.Accordion("Use it from Python, or by agents", open=False):
            gr.Markdown(endpoints.SNIPPET)
        app.unload(jobs.stop)
    app.queue(max_size=16 * MAX_JOBS, default_concurrency_limit=4)
    return app


def _close(session: Session | None) -> None:
    if session is not None:
        session.close()


def _pass_proxies_by(host: str) -> None:
    """Let this process reach its own page where a proxy is set: Gradio asks it at the start."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [os.environ.get(name, ""), "127.0.0.1", "localhost", host]
        os.environ[name] = ",".join(part for part in hosts if part)


def serve(
    checkpoints: list[str], host: str = "127.0.0.1", port: int | None = None, *,
    mcp: bool = False, sam: str | None = None, threads: int | None = None,
) -> None:  # fmt: skip
    """Serve the page until the process is stopped.

    Args:
        checkpoints: to choose from; the first is the default.
        host: the address to listen at; "0.0.0.0" for all of this machine's.
        port: None: the first free one from 7860 on.
        mcp: serve the endpoints as tools of the Model Context Protocol too.
        sam: a SAM checkpoint of transformers for clicks and boxes; it must be on this machine.
        threads: CPU threads for each job; None: all.

    Raises:
        InputError: no such port, or no such SAM.
    """
    if threads:
        torch.set_num_threads(threads)
    if sam and Sam.cached(sam) is None:
        raise InputError(f"--sam {sam}: not on this machine, or transformers is not installed")
    _pass_proxies_by(host)
    with working_folder():
        options: dict[str, Any] = {
            **appearance(), "server_name": host, "server_port": port, "mcp_server": mcp,
            "share": False, "quiet": True, "max_threads": 40, "prevent_thread_lock": True,
            "state_session_capacity": 1000,
        }  # fmt: skip
        app = build(Models(checkpoints), Jobs(), sam)
        # `kill` ends it as Ctrl+C does: files are removed.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _, address, _ = app.launch(**options)
        except OSError as error:
            if "empty port" not in str(error):
                raise
            ports = f"port {port} is" if port else "all ports from 7860 on are"
            raise InputError(f"{ports} in use; choose another --port") from None
        except ValueError as error:  # Gradio asks its own page, and not for long
            if "localhost" not in str(error):
                raise
            raise InputError(
                "the page does not answer in time; if the machine is busy, try again later"
            ) from None
        print(f"{address.rstrip('/')} (Ctrl+C ends it)", flush=True)
        app.block_thread()
