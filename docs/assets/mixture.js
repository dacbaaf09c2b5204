// Reads a Gaussian mixture from a safetensors file, and draws kernels from it as dwp_init.GaussianMixture does.

// Maps the bytes of a file to its float32 tensors, each with its shape and data.
export function readSafetensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (entry.dtype !== "F32") throw new Error(`${name} is ${entry.dtype}; only F32 is read here`);
    const [start, end] = entry.data_offsets;
    const bytes = buffer.slice(8 + length + start, 8 + length + end);
    tensors[name] = { shape: entry.shape, data: new Float32Array(bytes) };
  }
  return tensors;
}

// Returns n kernels of d numbers each, one after the other.
//   tensors: those of the file; prefix: "" or, of a prior by depth, such as "mixtures.0."
//   scales: the strengths of every component
//   normals: n · d standard normal numbers; uniforms: n numbers in [0, 1); order: a permutation of 0 … n - 1
export function drawKernels(tensors, prefix, scales, normals, uniforms, order) {
  const part = (name) => tensors[prefix + name];
  const dim = part("whitening.loc").data.length;
  const picked = pick(part("weight").data, uniforms);
  const kernels = new Float32Array(picked.length * dim);
  order.forEach((row, place) => {
    const component = Math.floor(picked[row] / scales.length);
    const scale = scales[picked[row] % scales.length];
    const white = whitened(part("loc").data, part("scale_tril").data, component, dim, (i) => scale * normals[row * dim + i]);
    kernels.set(coloured(part, white, dim), place * dim);
  });
  return kernels;
}

// Which pair of a component and a strength each kernel comes from, in ascending order.
function pick(weights, uniforms) {
  let total = 0;
  const cumulated = Float32Array.from(weights, (weight) => (total += weight));
  const last = weights.length - 1;
  const places = Array.from(uniforms, (uniform) => {
    const found = cumulated.findIndex((sum) => sum > uniform);
    return found < 0 ? last : found;
  });
  return places.sort((a, b) => a - b);
}

function whitened(loc, tril, component, dim, noise) {
  return Float64Array.from({ length: dim }, (_, i) => {
    let sum = loc[component * dim + i];
    for (let j = 0; j <= i; j++) sum += tril[(component * dim + i) * dim + j] * noise(j);
    return sum;
  });
}

function coloured(part, white, dim) {
  const [loc, basis, scale] = ["loc", "basis", "scale"].map((name) => part(`whitening.${name}`).data);
  return Float32Array.from({ length: dim }, (_, i) => {
    let sum = loc[i];
    for (let j = 0; j < dim; j++) sum += basis[i * dim + j] * scale[j] * white[j];
    return sum;
  });
}
