"""The page of the demonstration."""

from collections.abc import Iterator
from html import escape
from typing import Any, get_args

import gradio as gr
from gradio.themes import Default

from dwp_init import SETS
from dwp_init.initialize import Scale
from dwp_init.registry import registry
from space.looks import kernels_html, look_at, response_svg
from space.race import BATCH, LR, PER_CLASS, TESTED, Race, race_svg, verdict_text
from space.visitors import Visitors

ARCHITECTURES = (
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "convnext_atto",
    "densenet121",
    "efficientnet_b0",
    "mobilenetv3_small_100",
    "regnetx_002",
)
CSS = """
body:not(:has(#choice input)) .tabs { visibility: hidden; } /* nothing moves */
.dwp img { image-rendering: pixelated; height: auto; max-width: 100%; }
.dwp svg { height: auto; max-width: 100%; }
.dwp figure { display: inline-block; margin: 0 1.5rem 0.8rem 0; max-width: 100%; vertical-align: top; }
.dwp table, .dwp th, .dwp td { border-left: 0 !important; border-right: 0 !important; border-top: 0 !important; }
.info-text, .min_value, .max_value { color: var(--body-text-color) !important; }
button[role=tab].selected { color: var(--body-text-color) !important; font-weight: 700; }
.dwp [role=alert] { border-left: 4px solid #c62828; padding: 0.5rem 0.8rem; }
"""
ABOUT_PAGE = """# Kernels from learned priors

`dwp_init` starts the convolutions of a network from kernels drawn from priors of trained networks, in place of white
noise. Choose an architecture of timm and a prior; nothing is downloaded."""
ABOUT_RACE = f"""Trains the network from the prior and from its own start on scikit-learn's handwritten digits (UCI,
CC BY 4.0): {PER_CLASS} images a class, {TESTED} others to test, AdamW at a learning rate of {LR:g}, {BATCH} images a
step. Bands are one standard deviation over seeds; both starts of a seed have the same other weights and images.

**What it shows, and what not:** small, easy images, a learning rate that was tuned for neither start, and few seeds.
The prior may lead or lag, and either may be gone at the end. Whether a start helps in tasks like yours is a question
for the benchmark of the documentation."""


def demonstration(visitors: Visitors) -> gr.Blocks:
    """Makes the page: a tab that looks at one draw, and a tab that races.

    Args:
        visitors: Their races; that of a visitor who leaves the page is stopped.
    """

    def leave(visitor: gr.Request) -> None:
        visitors.stop(visitor.session_hash)

    page: gr.Blocks = gr.Blocks(title="Kernels from learned priors", analytics_enabled=False)
    with page:
        gr.Markdown(ABOUT_PAGE)
        with gr.Row(elem_id="choice"):
            architecture = gr.Dropdown(
                list(ARCHITECTURES),
                value="resnet18",
                label="architecture",
                info="any name of timm",
                allow_custom_value=True,
            )
            prior = gr.Dropdown([*SETS, *registry()], value="natural", label="prior", info="a set, or one prior")
        with gr.Tab("Look"):
            _look_tab(architecture, prior)
        with gr.Tab("Race"):
            _race_tab(architecture, prior, visitors)
        page.unload(leave)
    return page


def launch(**options: Any) -> Any:
    """Serves the page; makes no request to another host.

    Args:
        options: As for ``gradio.Blocks.launch``.
    """
    fonts, code_fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]  # the reader's own: nothing moves
    theme = Default(primary_hue="indigo", font=fonts, font_mono=code_fonts)
    theme.set(button_primary_background_fill="*primary_700")
    return demonstration(Visitors()).launch(css=CSS, theme=theme, footer_links=[], ssr_mode=False, **options)


def _look_tab(architecture: gr.Dropdown, prior: gr.Dropdown) -> None:
    with gr.Row():
        scale = gr.Dropdown(list(get_args(Scale)), value="auto", label="scale")
        seed = gr.Number(0, label="seed", precision=0, minimum=0)
    button = gr.Button("Draw kernels", variant="primary")
    look = gr.State()
    said = gr.HTML(visible=False, elem_classes="dwp")
    with gr.Column(visible=False) as results:
        layer = gr.Dropdown([], label="kernels of the layer")
        kernels, chart, table = (gr.HTML(elem_classes="dwp") for _ in range(3))

    def draw(name: str, start: str, chosen: Scale, number: float | None) -> dict[Any, Any]:
        try:
            seen = look_at(name, start, chosen, int(number or 0))
        except (ValueError, TypeError, RuntimeError) as error:
            return {look: None, said: gr.HTML(alert(error), visible=True), results: gr.Column(visible=False)}
        layers = list(seen.kernels)
        first = layers[0] if layers else ""
        return {
            look: seen,
            said: gr.HTML(f"<p><b>{escape(str(seen.report.coverage))}</b></p>", visible=True),
            results: gr.Column(visible=True),
            layer: gr.Dropdown(layers, value=first or None),
            kernels: kernels_html(seen, first),
            chart: response_svg(seen.report.drawn),
            table: seen.report._repr_html_(),
        }

    button.click(draw, [architecture, prior, scale, seed], [look, said, results, layer, kernels, chart, table])
    layer.input(kernels_html, [look, layer], kernels)


def _race_tab(architecture: gr.Dropdown, prior: gr.Dropdown, visitors: Visitors) -> None:
    gr.Markdown(ABOUT_RACE)
    with gr.Row():
        seeds = gr.Slider(2, 4, value=2, step=1, label="seeds")
        seconds = gr.Slider(5, 300, value=120, step=5, label="seconds")
    with gr.Row():
        button, stop = gr.Button("Start the race", variant="primary"), gr.Button("Stop")
    said, curve = gr.HTML(elem_classes="dwp"), gr.HTML(elem_classes="dwp")

    def begin(name: str, start: str, count: int, limit: float, visitor: gr.Request) -> tuple[str, str]:
        visitors.ask(visitor.session_hash, Race(name, start, int(count), float(limit)))
        return "<p>Waiting until other races have ended.</p>", ""

    def race(visitor: gr.Request) -> Iterator[tuple[Any, Any]]:
        try:
            for state in visitors.states(visitor.session_hash):
                yield f"<p>{verdict_text(state)}</p>", race_svg(state)
        except (ValueError, TypeError, RuntimeError) as error:
            yield alert(error), ""
        yield gr.skip(), gr.skip()  # Gradio shows the last ones again at the end, over what a later click shows

    def end(visitor: gr.Request) -> Any:
        return "<p>Stopped before it began.</p>" if visitors.stop(visitor.session_hash) else gr.skip()

    chosen, shown = [architecture, prior, seeds, seconds], [said, curve]
    begun = button.click(begin, chosen, shown, queue=False)
    # "multiple": a place in the queue also for a visitor whose last race has not ended yet
    begun.then(race, None, shown, concurrency_limit=1, trigger_mode="multiple", show_progress="hidden")
    stop.click(end, None, said, queue=False, show_progress="hidden")


def alert(error: Exception) -> str:
    """Formats what is wrong, for the page."""
    return f'<p role="alert">{escape(str(error))}</p>'
