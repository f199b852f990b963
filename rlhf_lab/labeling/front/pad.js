// An agent that acts before a person, who says good or bad.
//
// The page keeps the time: its clock stands still in a pause, and it asks for each step when that is due. Of a press it
// says how long the frame that it shows had been in sight.

const AHEAD = 4; // Steps that may be on their way at once, so that a slow connection does not slow the agent.
const LATE_S = 0.4; // What is lost to a busy machine is made up for, up to so much,
const CLOSEST = 0.6; // by steps that follow each other no sooner than this share of their time.
const MARK_MS = 600;
const SPEECH = { play: "Playing.", pause: "Paused.", new_episode: "A new episode.", stop: "Stopped." };

class Pad {
  constructor(model, root) {
    const { guidelines, pace, paces, title } = model.get("setup");
    Object.assign(this, { model, root, pace, view: uid(), ran: 0, due: 0, askedAt: -1, onTheWay: 0, isPlaying: false, frame: null, shownAt: 0, seen: [], presses: 0, sentAt: 0 });
    this.sender = new Sender(model, (message, reply) => this.onReply(message, reply), (...state) => this.onState(...state));
    this.drawing = Promise.resolve();
    this.canvas = el("canvas", { class: "rl-task", role: "img", "aria-label": `${title}, at rest` });
    this.mark = el("div", { class: "rl-mark", "aria-hidden": "true" });
    this.info = el("p", { class: "rl-note rl-info", "data-testid": "info" });
    this.news = el("div", { class: "rl-hidden", role: "status" }); // For who does not see the line above; the eye has enough to do.
    this.count = el("span", { class: "rl-count" }, "No presses yet");
    this.good = button("Good", "1", () => this.press(1), { class: "rl-button rl-thumb", "data-testid": "good" });
    this.bad = button("Bad", "2", () => this.press(-1), { class: "rl-button rl-thumb", "data-testid": "bad" });
    this.toggle = button("Play", "Space", () => this.setPlaying(!this.wantsPlay), { class: "rl-button rl-thumb rl-main", "data-testid": "play" });
    this.again = button("New episode", "N", () => this.say("new_episode"));
    this.halt = button("Stop", "S", () => this.stop());
    this.help = button("Guidelines", "?", () => this.toggleGuide(), { "aria-expanded": "false" });
    this.dial = el("input", { type: "range", min: paces[0], max: paces[1], step: 1, value: pace, class: "rl-dial", "aria-label": "Steps per second" });
    this.dialed = el("span", {});
    this.dial.addEventListener("input", () => this.setPace(Number(this.dial.value)));
    this.guide = el("div", { class: "rl-guide", hidden: true, tabindex: "0", role: "region", "aria-label": "Guidelines" }, markdown(guidelines));
    this.status = el("div", { class: "rl-status", role: "status" });
    const keys = [["1 or ↑", "good"], ["2 or ↓", "bad"], ["Space", "play, pause"], ["+ −", "pace"], ["N", "new episode"], ["S", "stop"], ["?", "guidelines"]];
    root.append(
      el("div", { class: "rl-top" }, this.count, el("div", { class: "rl-tools", role: "toolbar", "aria-label": "Tools" }, this.again, this.halt, this.help)),
      this.guide, el("div", { class: "rl-stage" }, this.canvas, this.mark), this.info, this.news,
      el("div", { class: "rl-row rl-pad" }, this.good, this.bad, this.toggle,
        el("label", { class: "rl-pace" }, "Pace ", this.dial, this.dialed)),
      el("div", { class: "rl-bottom" }, this.status, el("div", { class: "rl-keys" }, keys.map(([key, what]) => el("span", {}, el("kbd", {}, key), ` ${what}`)))));
    root.addEventListener("keydown", (event) => this.onKey(event));
    // A button that was clicked would take Space for itself from then on.
    root.addEventListener("pointerup", (event) => event.target.closest("button, input") && root.focus({ preventScroll: true }));
    this.onHidden = () => document.hidden && this.setPlaying(false);
    document.addEventListener("visibilitychange", this.onHidden);
    this.setPace(pace, false);
    this.toggleGuide(true);
    this.setState("ready", "");
    this.send("show");
  }

  close() {
    clearTimeout(this.timer);
    this.isPlaying = false;
    document.removeEventListener("visibilitychange", this.onHidden);
  }

  // Time, in seconds that were played

  clock() {
    return this.ran + (this.isPlaying ? (performance.now() - this.since) / 1000 : 0);
  }

  schedule() {
    clearTimeout(this.timer);
    const next = Math.max(this.due, this.askedAt + CLOSEST / this.pace);
    if (this.isPlaying) this.timer = setTimeout(() => this.tick(), Math.max(0, 1000 * (next - this.clock())));
  }

  tick() {
    if (!this.isPlaying) return;
    if (!this.root.getClientRects().length) return this.setPlaying(false); // Another tab of JupyterLab covers it.
    if (this.onTheWay >= AHEAD) return; // The next reply goes on.
    this.onTheWay += 1;
    this.model.send({ action: "tick", uid: "tick", view: this.view });
    this.askedAt = this.clock();
    this.due = Math.max(this.due + 1 / this.pace, this.askedAt - LATE_S); // On a grid: lateness does not add up.
    this.schedule();
  }

  // What the person does

  send(action, others = {}) {
    const seconds = Math.max(0, this.clock() - this.sentAt);
    this.sentAt = this.clock();
    this.sender.send({ action, view: this.view, wall: Date.now() / 1000, seconds, ...others });
  }

  say(action, others) {
    if (!this.isOver && !this.sender.isLost) this.send(action, others);
  }

  press(value) {
    if (this.isOver || this.sender.isLost || !this.frame) return;
    this.say("press", { value, frame: this.frame.number, late: this.clock() - this.shownAt });
    this.mark.textContent = value > 0 ? "▲ good" : "▼ bad";
    clearTimeout(this.fading);
    this.fading = setTimeout(() => { this.mark.textContent = ""; }, MARK_MS);
  }

  setPlaying(wanted) {
    if (this.isOver || this.sender.isLost || wanted === Boolean(this.wantsPlay)) return;
    this.wantsPlay = wanted;
    this.toggle.lastChild.textContent = wanted ? "Pause" : "Play";
    if (!wanted) this.rest();
    this.send(wanted ? "play" : "pause");
  }

  // It begins when the kernel knows, and ends at once.
  begin() {
    if (this.isPlaying || !this.wantsPlay) return;
    Object.assign(this, { since: performance.now(), isPlaying: true, onTheWay: 0, due: Math.max(this.due, this.ran), seen: [] });
    this.schedule();
  }

  rest() {
    this.ran = this.clock();
    this.isPlaying = false;
    clearTimeout(this.timer);
  }

  setPace(pace, isNew = true) {
    const next = Math.min(Math.max(pace, Number(this.dial.min)), Number(this.dial.max));
    this.dial.value = next;
    this.dialed.textContent = `${next} steps a second`;
    if (!isNew) this.pace = next;
    if (next === this.pace) return;
    this.due += 1 / next - 1 / this.pace;
    this.pace = next;
    this.seen = [];
    this.schedule();
    this.say("pace", { value: next });
  }

  stop() {
    if (this.isOver) return;
    this.rest();
    this.wantsPlay = false;
    this.send("stop");
  }

  toggleGuide(isOpen = this.guide.hidden) {
    setOpen(this, isOpen);
  }

  // What comes back

  receive(reply, buffers) {
    if (reply.frame) this.drawing = this.drawing.then(() => this.draw(reply.frame, buffers[0]));
    if (reply.uid !== "tick") return this.sender.receive(reply);
    if (reply.view !== this.view) return;
    this.onTheWay -= 1;
    if (!reply.ok || reply.end) return this.end(`Stopped: ${reply.error || reply.end}`);
    if (!reply.frame && this.isPlaying) return this.giveWay();
    if (this.isPlaying) this.schedule();
  }

  async draw(frame, picture) {
    const image = await createImageBitmap(new Blob([picture], { type: "image/png" }));
    const { canvas } = this;
    if (canvas.width !== image.width || canvas.height !== image.height) Object.assign(canvas, { width: image.width, height: image.height });
    canvas.classList.toggle("rl-pixels", image.width < SMALL_PX);
    canvas.getContext("2d").drawImage(image, 0, 0);
    this.frame = frame;
    this.shownAt = this.clock();
    this.seen = [...this.seen.slice(-20), this.shownAt];
    const [first, last] = [this.seen[0], this.seen.at(-1)];
    const reached = this.isPlaying && last > first ? ` · ${((this.seen.length - 1) / (last - first)).toFixed(1)} steps a second` : "";
    const action = frame.action === null ? "" : ` · action ${frame.action}`;
    this.info.textContent = `Episode ${frame.episode} · step ${frame.step}${action}${reached}${frame.is_over ? " · the episode is over" : ""}`;
    if (frame.is_over) this.news.textContent = `Episode ${frame.episode} is over after ${frame.step} steps.`;
    canvas.setAttribute("aria-label", `${this.model.get("setup").title}, episode ${frame.episode}, step ${frame.step}`);
  }

  onReply(message, reply) {
    if (!reply.ok || (reply.end && message.action !== "stop")) return this.end(`Stopped: ${reply.error || reply.end}`);
    this.presses = reply.presses;
    const { isBusy } = this.sender;
    if (!isBusy) this.setPace(reply.pace, false);
    this.setState(isBusy ? "saving" : message.action === "show" ? "ready" : "saved", this.spoken(message));
    if (reply.session !== null) this.count.textContent = `Session ${reply.session + 1} · ${reply.presses} ${reply.presses === 1 ? "press" : "presses"}`;
    if (message.action === "play") this.begin();
    if (message.action === "stop") this.end(`Stopped after ${this.presses} presses, which are saved. Run the cell again for another session.`, "saved");
  }

  // Another view of this widget plays now.
  giveWay() {
    this.rest();
    this.wantsPlay = false;
    this.toggle.lastChild.textContent = "Play";
    this.setState("ready", "The agent is played elsewhere.");
  }

  end(text, state = "failed") {
    this.rest();
    this.isOver = true;
    if (this.root.contains(document.activeElement)) this.root.focus({ preventScroll: true }); // A disabled button would drop it.
    for (const node of [this.good, this.bad, this.toggle, this.again, this.halt, this.dial]) node.disabled = true;
    this.setState(state, text);
  }

  onState(state, error = "", canRetry = false) {
    if (state === "saving") this.root.dataset.state = state;
    if (this.isOver || state === "saving" || state === "saved" || (state === "failed" && !canRetry)) return; // `onReply` says it.
    this.rest();
    this.wantsPlay = false;
    this.toggle.lastChild.textContent = "Play";
    if (state === "lost") return this.end(`The kernel was restarted or is gone. Run this cell again: all that was saved is kept. ${error}`, "lost");
    this.setState(state, `Not saved yet: ${error} The agent waits. `);
    this.status.append(button("Try again", "", () => this.sender.retry()));
  }

  spoken(message) {
    if (message.action === "press") return `${message.value > 0 ? "Good" : "Bad"}, press ${this.presses}. Saved.`;
    if (message.action === "pace") return `${message.value} steps a second.`;
    return SPEECH[message.action] ?? "";
  }

  setState(state, text) {
    this.root.dataset.state = state;
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  // Keys

  onKey(event) {
    event.stopPropagation(); // The notebook has keys of its own, which cut and move cells.
    if (event.altKey || event.metaKey || event.ctrlKey || event.isComposing) return;
    if (event.target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ")) return; // It is its click.
    if ([this.dial, this.guide].includes(event.target) && event.key.startsWith("Arrow")) return; // They move or scroll by these.
    const tools = { 1: () => this.press(1), arrowup: () => this.press(1), 2: () => this.press(-1), arrowdown: () => this.press(-1),
      " ": () => this.setPlaying(!this.wantsPlay), n: () => this.say("new_episode"), s: () => this.stop(), "?": () => this.toggleGuide(),
      "+": () => this.setPace(this.pace + 1), "=": () => this.setPace(this.pace + 1), "-": () => this.setPace(this.pace - 1) };
    const tool = tools[event.key.toLowerCase()];
    if (!tool) return;
    event.preventDefault();
    if (!event.repeat) tool(); // A key that is held down is one press.
  }
}
