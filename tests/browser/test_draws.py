"""«Draw again» on a prior's page: the kernels that ``prior.sample`` gives."""

from typing import Any

import pytest
import torch

from dwp_init import GaussianMixture, MixtureByDepth, load_prior
from dwp_init.registry import registry
from tests.browser.visits import Visit

COUNT = 32
DRAW = """async ([base, file, prefix, scales, normals, uniforms, order]) => {
  const { readSafetensors, drawKernels } = await import(base + "assets/mixture.js");
  const tensors = readSafetensors(await (await fetch(base + file)).arrayBuffer());
  return [...drawKernels(tensors, prefix, scales, normals, uniforms, order)];
}"""


def mixtures(name: str) -> dict[str, GaussianMixture]:
    """The mixtures of a prior by the beginning of their tensors' names; none of another family."""
    prior = load_prior(name)
    if isinstance(prior, GaussianMixture):
        return {"": prior}
    depths = enumerate(prior.depths) if isinstance(prior, MixtureByDepth) else ()
    return {f"mixtures.{place}.": prior.at(depth) for place, depth in depths}


NAMES = [name for name in registry() if mixtures(name)]


@pytest.mark.parametrize("name", ["notmnist-5x5", "natural-dw3x3", "tinyimagenet-stem-7x7"])
def test_the_kernels_of_stated_random_numbers(name: str, visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix, mixture = list(mixtures(name).items())[-1]
    generator = torch.Generator().manual_seed(5)
    normals = torch.randn(COUNT, mixture.dim, generator=generator)
    uniforms, order = torch.rand(COUNT, generator=generator), torch.arange(COUNT).flip(0)
    with monkeypatch.context() as stated:
        stated.setattr(torch.Tensor, "normal_", lambda self, **options: self.copy_(normals))
        stated.setattr(torch, "rand", lambda n, **options: uniforms.clone())
        stated.setattr(torch, "randperm", lambda n, **options: order.clone())
        expected = mixture.sample(COUNT).flatten()
    numbers: list[Any] = [values.flatten().tolist() for values in (normals, uniforms, order)]
    visit.go("")
    file = f"priors/models/{name}.safetensors"
    found = visit.page.evaluate(DRAW, [visit.site, file, prefix, list(mixture.scales), *numbers])
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_draw_again_gives_the_kernels_of_the_seed_in_python(name: str, visit: Visit) -> None:
    page = visit.go(f"priors/{name}/")
    before = page.locator("form.draw img").bounding_box()
    for place, mixture in enumerate(mixtures(name).values()):
        if place:
            page.select_option("select[name=depth]", str(place))
        page.click("button[name=again]")
        seed = int(page.input_value("input[name=seed]"))
        assert seed == place + 1
        page.wait_for_function(f"document.querySelector('form.draw output').textContent.includes('seed({seed})')")
        expected = mixture.sample(COUNT, torch.Generator().manual_seed(seed)).flatten()
        found = torch.tensor(page.evaluate("[...document.querySelector('form.draw').kernels]"))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
    assert page.locator("form.draw canvas").bounding_box() == before
    code = page.locator("form.draw output").inner_text()
    last = eval(code, {"load_prior": load_prior, "torch": torch})
    torch.testing.assert_close(last.flatten(), found, rtol=1e-4, atol=1e-5 * found.abs().max().item())


@pytest.mark.parametrize("name", ["notmnist-7x7", "tinyimagenet-stem-7x7", "audio", "brain-mri"])
def test_the_picture_is_that_of_python(name: str, visit: Visit) -> None:
    page = visit.go(f"priors/{name}/")
    shot = page.locator("form.draw img").screenshot()
    page.click("button[name=draw]")  # seed 0, as the picture
    page.locator("form.draw canvas").wait_for()
    assert page.locator("form.draw canvas").screenshot() == shot


def test_a_file_that_is_not_there_is_said(visit: Visit) -> None:
    page = visit.go("priors/natural-dw3x3/")
    page.evaluate("document.querySelector('form.draw').dataset.model = '../models/none.safetensors'")
    page.click("button[name=draw]")
    page.wait_for_function("document.querySelector('form.draw output').textContent.includes('answers 404')")
    assert any("none.safetensors" in fault or "404" in fault for fault in visit.faults)
    visit.faults.clear()


@pytest.mark.parametrize("name", [name for name in registry() if name not in NAMES])
def test_other_families_show_a_picture(name: str, visit: Visit) -> None:
    page = visit.go(f"priors/{name}/")
    assert page.locator("form.draw").count() == 0
    assert page.locator("img.sheet").first.get_attribute("alt") == f"{COUNT} kernels drawn from {name}"
