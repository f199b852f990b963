// Two clips of behavior, which play side by side in step, and which of them is better.

const HOLD_S = 0.5; // The last frame stays, so that one sees where a clip ends.
const SMALL_PX = 240; // Frames narrower than that are enlarged pixel by pixel.

const compare_clips = {
  show(page, view) {
    const films = new Films(view);
    const comment = page.comment();
    const choose = (label, key, choice) => button(label, key, () => page.answer({ choice }, comment?.field.value ?? ""),
      { "aria-pressed": String(view.value?.choice === choice), "data-testid": `choice-${key}` });
    const first = choose("A is better", "1", "first");
    const second = choose("B is better", "2", "second");
    const others = [choose("They are equally good", "T", "tie"), choose("I cannot tell", "C", "cannot_compare")];
    const byKey = new Map([["1", first], ["arrowleft", first], ["2", second], ["arrowright", second], ["t", others[0]], ["c", others[1]],
      [" ", films.toggle], ["r", films.again]]);
    return {
      nodes: [el("p", { class: "rl-title", dir: "auto" }, view.post.text), el("div", { class: "rl-pair rl-clips" }, films.nodes),
        el("div", { class: "rl-row" }, films.toggle, films.again, films.moment),
        el("div", { class: "rl-row", role: "group", "aria-label": view.post.text }, first, second, others, comment?.node)],
      keys: [["1 or ←", "A"], ["2 or →", "B"], ["T", "equal"], ["C", "cannot tell"], ["Space", "play, pause"], ["R", "from the start"],
        ...(comment ? [["N", "comment"]] : [])],
      onKey: (event) => pressed(event, byKey, comment),
      onShown: () => films.start(),
    };
  },
};

class Films {
  constructor({ answers, film }) {
    Object.assign(this, film, { sources: answers, at: 0, isPlaying: false, seconds: film.frames / film.frames_per_second });
    this.canvases = answers.map((_, index) => el("canvas", { role: "img", class: "rl-clip",
      "aria-label": `Clip ${LETTERS[index]}, ${this.frames} frames, ${this.seconds.toFixed(1)} s` }));
    this.nodes = this.canvases.map((canvas, index) => el("div", { class: "rl-answer" }, el("div", { class: "rl-name", "aria-hidden": "true" }, `Clip ${LETTERS[index]}`), canvas));
    this.toggle = button("Pause", "Space", () => this.play(!this.isPlaying), { "data-testid": "play" });
    this.again = button("From the start", "R", () => { this.at = 0; this.play(true); });
    this.moment = el("span", { class: "rl-note", "data-testid": "moment" });
  }

  async start() {
    try {
      this.images = await Promise.all(this.sources.map(decoded));
    } catch (error) {
      this.nodes[0].before(el("p", { role: "alert" }, "A clip cannot be shown by this browser; please skip the pair."));
      return;
    }
    const rows = Math.ceil(this.frames / this.columns);
    this.canvases.forEach((canvas, index) => {
      const { naturalWidth, naturalHeight } = this.images[index];
      Object.assign(canvas, { width: naturalWidth / this.columns, height: naturalHeight / rows });
      if (canvas.width < SMALL_PX) canvas.classList.add("rl-pixels");
    });
    this.draw();
    this.play(!matchMedia("(prefers-reduced-motion: reduce)").matches); // Who wants no motion begins it themselves.
  }

  play(isPlaying) {
    const wasPlaying = this.isPlaying;
    this.isPlaying = isPlaying;
    this.toggle.lastChild.textContent = isPlaying ? "Pause" : "Play";
    this.drawnAt = performance.now();
    if (isPlaying && !wasPlaying) requestAnimationFrame((now) => this.tick(now));
  }

  tick(now) {
    if (!this.isPlaying || !this.toggle.isConnected) return;
    this.at = (this.at + Math.max(0, now - this.drawnAt) / 1000) % (this.seconds + HOLD_S);
    this.drawnAt = now;
    this.draw();
    requestAnimationFrame((next) => this.tick(next));
  }

  draw() {
    const frame = Math.min(this.frames - 1, Math.floor(this.at * this.frames_per_second));
    if (frame === this.frame) return;
    this.frame = frame;
    this.canvases.forEach((canvas, index) => {
      const { width, height } = canvas;
      const [column, row] = [frame % this.columns, Math.floor(frame / this.columns)];
      canvas.getContext("2d").drawImage(this.images[index], column * width, row * height, width, height, 0, 0, width, height);
    });
    this.moment.textContent = `Frame ${frame + 1} of ${this.frames}`;
  }
}

async function decoded(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}
