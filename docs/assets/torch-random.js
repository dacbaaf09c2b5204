// The random numbers of torch.Generator("cpu"): MT19937, and how PyTorch makes float32 numbers of it.

const LENGTH = 624;
const MIDDLE = 397;

export class TorchGenerator {
  constructor(seed) {
    this.state = new Uint32Array(LENGTH);
    this.state[0] = seed;
    for (let i = 1; i < LENGTH; i++) {
      const last = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, last) + i;
    }
    this.next = LENGTH;
  }

  random() {
    if (this.next === LENGTH) this.#twist();
    let bits = this.state[this.next++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  }

  #twist() {
    const state = this.state;
    for (let i = 0; i < LENGTH; i++) {
      const bits = (state[i] & 0x80000000) | (state[(i + 1) % LENGTH] & 0x7fffffff);
      state[i] = state[(i + MIDDLE) % LENGTH] ^ (bits >>> 1) ^ (bits & 1 ? 0x9908b0df : 0);
    }
    this.next = 0;
  }

  // Numbers in [0, 1), as torch.rand gives them.
  uniforms(count) {
    return Float32Array.from({ length: count }, () => (this.random() & 0xffffff) / 2 ** 24);
  }

  // Standard normal numbers, as Tensor.normal_ gives them, of which there must be 16 or more.
  normals(count) {
    const found = this.uniforms(count);
    for (let start = 0; start + 15 < count; start += 16) boxMuller(found, start);
    if (count % 16) {
      found.set(this.uniforms(16), count - 16);
      boxMuller(found, count - 16);
    }
    return found;
  }

  // A permutation of 0 … count - 1, as torch.randperm gives it.
  permutation(count) {
    const order = Array.from({ length: count }, (_, i) => i);
    for (let i = 0; i < count - 1; i++) {
      const other = i + (this.random() % (count - i));
      [order[i], order[other]] = [order[other], order[i]];
    }
    return order;
  }
}

function boxMuller(numbers, start) {
  for (let i = start; i < start + 8; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - numbers[i]));
    const angle = 2 * Math.PI * numbers[i + 8];
    numbers[i] = radius * Math.cos(angle);
    numbers[i + 8] = radius * Math.sin(angle);
  }
}
