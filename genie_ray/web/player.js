// A world model's ONNX graphs, played as player.json says and as world_model/rollout.py does: MaskGIT decoding without
// noise (Chang et al., 2022), past frames never recomputed, a clip that slides when it is full.
class Player {
  static async load(ort, about, folder) {
    const sessions = {};
    for (const [name, graph] of Object.entries(about.graphs))
      sessions[name] = await ort.InferenceSession.create(folder + graph.file, {executionProviders: ["wasm"]});
    return new Player(ort, about, sessions);
  }
  constructor(ort, about, sessions) {
    Object.assign(this, {ort, about, sessions, steps: about.decoding_steps, cells: about.grid[0] * about.grid[1]});
  }
  async run(name, given) {
    const shapes = this.about.graphs[name].inputs, feeds = {};
    for (const [key, values] of Object.entries(given))
      feeds[key] = new this.ort.Tensor(
        values instanceof BigInt64Array ? "int64" : values instanceof Uint8Array ? "uint8" : "float32", values, shapes[key]);
    return await this.sessions[name].run(feeds);
  }
  async begin(frames, actions) {  // frames: bytes [H, W, 3] each, and the actions between them
    const {about, cells} = this, size = frames[0].length;
    this.frames = [...frames]; this.actions = [...actions]; this.known = frames.length;
    const clip = new Uint8Array(about.frames * size);
    frames.forEach((frame, t) => clip.set(frame, t * size));
    const {tokens} = await this.run("encode", {frames: clip});
    this.tokens = Array.from({length: about.frames}, (_, t) => tokens.data.slice(t * cells, (t + 1) * cells));
    if (!about.in_steps) return;
    this.past = {};
    for (const name of ["dynamics", "decode"]) {
      this.past[name] = {};
      for (const part of ["inputs", "keys", "values"])
        this.past[name][part] = new Float32Array(about.graphs[name].inputs[part].reduce((a, b) => a * b));
    }
    for (let t = 0; t < this.known; t++) { await this.logits(t, true); await this.pixels(t); }
  }
  keep(name, frame, left) {  // what a frame leaves becomes past
    const past = this.past[name], {inputs, keys} = this.about.graphs[name].inputs;
    const frameSize = inputs.slice(2).reduce((a, b) => a * b), [blocks, cells, heads, frames, channels] = keys;
    for (let half = 0; half < inputs[0]; half++) {
      const start = half * 2 * frameSize;
      past.inputs.copyWithin(start, start + frameSize, start + 2 * frameSize);
      past.inputs.set(left.inputs_left.data.subarray(half * frameSize, (half + 1) * frameSize), start + frameSize);
    }
    for (const part of ["keys", "values"])
      for (let row = 0; row < blocks * cells * heads; row++)
        past[part].set(left[part + "_left"].data.subarray(row * channels, (row + 1) * channels), (row * frames + frame) * channels);
  }
  async logits(frame, keep = false) {  // Float32Array [cells * codes]
    const place = BigInt64Array.of(BigInt(frame)), number = t => BigInt(this.actions[t] ?? 0);
    if (!this.about.in_steps) {
      const tokens = new BigInt64Array(this.about.frames * this.cells);
      this.tokens.forEach((each, t) => tokens.set(each, t * this.cells));
      const actions = BigInt64Array.from({length: this.about.frames - 1}, (_, t) => number(t));
      return (await this.run("dynamics", {tokens, actions, frame: place})).logits.data;
    }
    const action = BigInt64Array.of(number(Math.max(0, frame - 1)));
    const found = await this.run("dynamics", {tokens: this.tokens[frame], action, frame: place, ...this.past.dynamics});
    if (keep) this.keep("dynamics", frame, found);
    return found.logits.data;
  }
  async pixels(frame) {  // Float32Array [H * W * 3] in [0, 1]
    const place = BigInt64Array.of(BigInt(frame));
    if (!this.about.in_steps) {
      const tokens = new BigInt64Array(this.about.frames * this.cells);
      this.tokens.forEach((each, t) => tokens.set(each, t * this.cells));
      return (await this.run("decode", {tokens, frame: place})).pixels.data;
    }
    const found = await this.run("decode", {tokens: this.tokens[frame], frame: place, ...this.past.decode});
    this.keep("decode", frame, found);
    return found.pixels.data;
  }
  async act(action) {  // the next frame: pixels, and how unsure each token was before any was known
    const {about, cells} = this, {codes} = about, mask = BigInt(about.mask_token);
    if (this.known === about.frames) {
      const kept = about.frames >> 1;
      await this.begin(this.frames.slice(-kept), this.actions.slice(about.frames - kept, about.frames - 1));
    }
    const frame = this.known, tokens = this.tokens[frame] = new BigInt64Array(cells).fill(mask), uncertainty = [];
    this.actions[frame - 1] = action;
    for (let step = 1; step <= this.steps; step++) {
      const logits = await this.logits(frame), taken = [];
      for (let cell = 0; cell < cells; cell++) {
        if (tokens[cell] !== mask) continue;
        const row = logits.subarray(cell * codes, (cell + 1) * codes);
        let best = 0, sum = 0, weighted = 0;
        for (let code = 1; code < codes; code++) if (row[code] > row[best]) best = code;
        for (let code = 0; code < codes; code++) {
          const below = row[code] - row[best], share = Math.exp(below);
          sum += share; weighted += share * below;
        }
        if (step === 1) uncertainty.push((Math.log(sum) - weighted / sum) / Math.log(codes));  // entropy / log K
        tokens[cell] = BigInt(best);
        taken.push([-Math.log(sum), cell]);  // log-probability of the likeliest code
      }
      taken.sort((a, b) => a[0] - b[0]);
      const again = Math.floor(Math.cos(Math.PI / 2 * step / this.steps) * cells);
      for (const [, cell] of taken.slice(0, again)) tokens[cell] = mask;
    }
    if (about.in_steps) await this.logits(frame, true);
    const pixels = await this.pixels(frame);
    this.frames.push(Uint8Array.from(pixels, value => Math.round(255 * value)));
    this.known += 1;
    return {pixels, uncertainty};
  }
}
