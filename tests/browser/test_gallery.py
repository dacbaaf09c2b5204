"""The gallery in a browser: its filters, by mouse and by keyboard."""

from dwp_init import SETS
from dwp_init.registry import registry
from tests.browser.visits import Visit


def shown(visit: Visit) -> set[str]:
    """The names of the tiles that can be seen."""
    return set(visit.page.locator(".tile:visible h2 a:first-child").all_inner_texts())


def test_each_prior_and_set_has_a_tile_and_its_page(visit: Visit) -> None:
    page = visit.go("priors/")
    assert shown(visit) == {*registry(), *SETS}
    page.click(".tile h2 a:text-is('notmnist-7x7-vae')")
    assert page.locator("h1").inner_text().startswith("notmnist-7x7-vae")


def test_filters_leave_the_tiles_that_have_every_value(visit: Visit) -> None:
    page = visit.go("priors/")
    page.select_option("select[name=size]", "7×7")
    of_size = {name for name, entry in registry().items() if entry["kernel_shape"][1:] == [7, 7]} - {"natural-stem"}
    assert shown(visit) == of_size | {*SETS}  # the stem is for all sizes up to 16×16
    page.select_option("select[name=family]", "mixture")
    mixtures = {name for name, entry in registry().items() if entry["family"] == "mixture"}
    assert shown(visit) == {name for name in mixtures if registry()[name]["kernel_shape"][1:] == [7, 7]}
    assert page.locator("form.filters output").inner_text() == f"{len(shown(visit))} of {len(registry()) + len(SETS)}"
    page.click("text=Show all")
    page.wait_for_function("document.querySelectorAll('.tile:not([hidden])').length > 10")
    assert shown(visit) == {*registry(), *SETS}


def test_by_licence_and_domain_and_an_address_that_can_be_shared(visit: Visit) -> None:
    page = visit.go("priors/?licence=Apache-2.0&domain=photographs")
    apache = {name: entry for name, entry in registry().items() if entry["license"] == "Apache-2.0"}
    assert shown(visit) == {name for name, entry in apache.items() if entry["source"] == "ImageNet"} < {*apache}
    page.select_option("select[name=licence]", "")
    page.select_option("select[name=domain]", "letters")
    assert shown(visit) == {name for name, entry in registry().items() if entry["source"] == "notmnist"}
    assert page.url.endswith("?domain=letters")


def test_by_keyboard_alone(visit: Visit) -> None:
    page = visit.go("priors/")
    page.focus("select[name=size]")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "kind"
    page.keyboard.type("depth")
    assert page.input_value("select[name=kind]") == "depthwise"
    assert shown(visit) == {name for name in registry() if "-dw" in name} | {*SETS}
