// The filters of the gallery: a tile stays if it has every chosen value. The choice stands in the address.

const form = document.querySelector("form.filters");
const tiles = [...document.querySelectorAll(".tile")];

function show() {
  const chosen = [...new FormData(form)].filter(([, value]) => value);
  for (const tile of tiles) tile.hidden = !chosen.every(([key, value]) => tile.dataset[key].split("|").includes(value));
  const left = tiles.filter((tile) => !tile.hidden).length;
  form.querySelector("output").textContent = `${left} of ${tiles.length}`;
  history.replaceState(null, "", (chosen.length ? `?${new URLSearchParams(chosen)}` : location.pathname) + location.hash);
}

for (const [key, value] of new URLSearchParams(location.search)) {
  const field = form.elements[key];
  if (field instanceof HTMLSelectElement && [...field.options].some((option) => option.value === value)) field.value = value;
}
form.addEventListener("change", show);
form.addEventListener("reset", () => setTimeout(show));
show();
