// «Draw again» on a prior's page: reads the prior's own file once, and draws the kernels that prior.sample gives for a seed.

import { drawKernels, readSafetensors } from "./mixture.js";
import { TorchGenerator } from "./torch-random.js";

const LINE = 128; // grey of the lines between kernels, as in dwp_init.picture

// Draws the kernels of a seed, (n, c · k · k) one after the other.
export function sample(tensors, { prefix, scales, dim, count }, seed) {
  const generator = new TorchGenerator(seed);
  const normals = generator.normals(count * dim);
  return drawKernels(tensors, prefix, scales, normals, generator.uniforms(count), generator.permutation(count));
}

function colour(value) {
  return [1 + value, 1 - Math.abs(value), 1 - value].map((part) => Math.round(255 * Math.min(part, 1)));
}

// Paints kernels (n, planes, height, width) as dwp_init.picture.kernel_sheet does: a tile for each plane, or, if rgb is set,
// one for the three planes together.
function paint(canvas, kernels, { planes, height, width, rgb, columns, count, zoom }) {
  const perKernel = rgb ? 1 : planes;
  const across = columns * perKernel;
  const [right, down] = [width * zoom + 1, height * zoom + 1];
  canvas.width = across * right + 1;
  canvas.height = Math.ceil(count / columns) * down + 1;
  const context = canvas.getContext("2d");
  const line = rgb ? 255 : LINE;
  context.fillStyle = `rgb(${line}, ${line}, ${line})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const plane = height * width;
  for (let tile = 0; tile < count * perKernel; tile++) {
    const kernel = kernels.subarray(Math.floor(tile / perKernel) * planes * plane).subarray(0, planes * plane);
    const largest = kernel.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
    const first = (tile % perKernel) * plane;
    for (let i = 0; i < plane; i++) {
      const channels = [0, 1, 2].map((c) => Math.round((255 * (kernel[c * plane + i] / largest + 1)) / 2));
      context.fillStyle = `rgb(${(rgb ? channels : colour(kernel[first + i] / largest)).join(", ")})`;
      const left = 1 + (tile % across) * right + (i % width) * zoom;
      const top = 1 + Math.floor(tile / across) * down + Math.floor(i / width) * zoom;
      context.fillRect(left, top, zoom, zoom);
    }
  }
}

class Drawing {
  constructor(form) {
    this.form = form;
    this.settings = JSON.parse(form.dataset.settings);
    form.addEventListener("submit", (event) => this.draw(event));
  }

  get seed() {
    return this.form.elements.seed;
  }

  async draw(event) {
    event.preventDefault();
    const status = this.form.querySelector("output");
    try {
      if (event.submitter?.name === "again") this.seed.value = (Number(this.seed.value) + 1) % 2 ** 32;
      const place = Number(this.form.elements.depth?.value ?? 0);
      const { depths, name, count } = this.settings;
      const prefix = depths.length ? `mixtures.${place}.` : "";
      const seed = Number(this.seed.value);
      const settings = { ...this.settings, prefix };
      this.tensors ??= this.read();
      const kernels = sample(await this.tensors, settings, seed);
      const canvas = this.form.querySelector("canvas");
      paint(canvas, kernels, settings);
      canvas.hidden = false;
      this.form.querySelector("img").hidden = true;
      this.form.kernels = kernels;
      const at = depths.length ? `.at(${depths[place]})` : "";
      status.textContent = `load_prior("${name}")${at}.sample(${count}, torch.Generator().manual_seed(${seed}))`;
    } catch (error) {
      this.tensors = undefined;
      status.textContent = `Nothing was drawn: ${error.message}`;
    }
  }

  async read() {
    const answer = await fetch(this.form.dataset.model);
    if (!answer.ok) throw new Error(`the server answers ${answer.status} for the prior's file`);
    return readSafetensors(await answer.arrayBuffer());
  }
}

document.querySelectorAll("form.draw").forEach((form) => new Drawing(form));
