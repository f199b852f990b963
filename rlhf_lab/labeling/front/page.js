// The frame of every front end: progress, tools, guidelines, the item, and what became of the last answer.

const REASONS = ["I do not understand it", "I do not want to read it", "Something is broken"];
const IDLE_MS = 60000;

class Page {
  constructor(model, root) {
    const { kind, options, guidelines } = model.get("setup");
    Object.assign(this, { model, root, kind, options, front: FRONTS[kind], shown: null, screen: model.get("screen"), spent: 0, drafts: new Map() });
    this.sender = new Sender(model, (message, reply) => this.onReply(message, reply), (...state) => this.onState(...state));
    this.count = el("span", { class: "rl-count" });
    this.bar = el("progress", { "aria-label": "Progress", max: 1, value: 0, hidden: Boolean(this.front.count) });
    this.back = button("Back", "B", () => this.goBack());
    this.undo = button("Undo", "U", () => this.takeBack());
    this.skip = button("Skip", "S", () => this.askReason());
    this.help = button("Guidelines", "?", () => this.toggleGuide(), { "aria-expanded": "false" });
    this.guide = el("div", { class: "rl-guide", hidden: true, tabindex: "0", role: "region", "aria-label": "Guidelines" }, markdown(guidelines));
    this.body = el("div", { class: "rl-body" });
    this.status = el("div", { class: "rl-status", role: "status" });
    this.keys = el("div", { class: "rl-keys" });
    root.append(
      el("div", { class: "rl-top" }, el("div", { class: "rl-progress" }, this.bar, this.count),
        el("div", { class: "rl-tools", role: "toolbar", "aria-label": "Tools" }, this.back, this.undo, this.skip, this.help)),
      this.guide, this.body, el("div", { class: "rl-bottom" }, this.status, this.keys));
    root.addEventListener("keydown", (event) => this.onKey(event));
    root.addEventListener("pointerdown", () => this.touch());
    root.addEventListener("focusout", (event) => { if (event.relatedTarget && !root.contains(event.relatedTarget)) this.hadFocus = false; });
    this.clock = setInterval(() => this.tick(), 250);
    this.touch();
    if (this.screen.progress.answered + this.screen.progress.skipped === 0) this.toggleGuide(true);
    this.show(this.screen.current);
    this.setState("ready", "");
  }

  // What the labeler does

  answer(value, comment = "") {
    if (!this.shown || this.sender.isLost || this.isHeld()) return;
    const seen = this.shown;
    this.sender.send({ action: "answer", assignment: seen.assignment, value, comment, seconds: this.takeSeconds() });
    this.screen.progress.answered += seen.status === "answered" ? 0 : 1;
    this.advance();
  }

  step(value, action = "step", waitMs = undefined) {
    if (!this.shown || this.sender.isBusy || this.sender.isLost) return;
    this.sender.send({ action, assignment: this.shown.assignment, ...value, seconds: this.takeSeconds() }, waitMs);
  }

  askReason() {
    if (this.skip.disabled || this.sender.isLost) return;
    const other = el("input", { type: "text", class: "rl-input", "aria-label": "Another reason", placeholder: "Another reason, then Enter" });
    const send = (reason) => {
      if (!reason.trim()) return other.focus();
      this.sender.send({ action: "skip", assignment: this.shown.assignment, value: { reason: reason.trim() }, seconds: this.takeSeconds() });
      this.advance();
    };
    other.addEventListener("keydown", (event) => event.key === "Enter" && send(other.value));
    const choices = REASONS.map((reason, index) => button(reason, String(index + 1), () => send(reason)));
    this.form = { keys: choices, close: () => this.closeForm() };
    const form = el("div", { class: "rl-form", role: "group", "aria-label": "Why do you skip this one?" },
      el("p", {}, "Why do you skip this one?"), el("div", { class: "rl-row" }, choices, other,
        button("Do not skip", "Esc", () => this.closeForm())));
    this.body.replaceChildren(form);
    this.keepFocus(true);
  }

  closeForm() {
    this.form = null;
    this.show(this.shown);
  }

  takeBack() {
    if (!this.undo.disabled && !this.sender.isBusy) this.sender.send({ action: "undo" });
  }

  goBack() {
    const place = this.shown ? this.shown.place : this.screen.place;
    if (!this.back.disabled && !this.sender.isBusy) this.sender.send({ action: "show", place: place - 1 });
  }

  goOn() {
    if (this.screen.is_earlier && !this.sender.isBusy) this.sender.send({ action: "show", place: -1 });
  }

  toggleGuide(isOpen = this.guide.hidden) {
    setOpen(this, isOpen);
  }

  // What is shown

  // The next item is here already: it is shown at once, while the answer to the last one is being saved.
  advance() {
    const next = this.screen.next;
    this.screen.next = null;
    this.form = null;
    this.show(next, !next);
  }

  show(view, isWaiting = false) {
    const isOther = !view || !this.shown || view.assignment !== this.shown.assignment;
    this.shown = view;
    this.form = null;
    if (isOther) this.spent = 0;
    this.shownAt = performance.now();
    const { progress } = this.screen;
    const done = progress.answered + progress.skipped;
    this.bar.max = Math.max(1, progress.total);
    this.bar.value = done;
    this.count.textContent = this.soFar();
    this.onView = null;
    if (view) {
      this.front.current = this.front.show(this, view);
      const notes = view.status === "answered" || view.status === "skipped" ? [el("p", { class: "rl-note" },
        view.status === "skipped" ? "You skipped this one; you may answer it now. " : "You answered this one; answer again to change it. ",
        this.screen.is_earlier ? button("Go on", "F", () => this.goOn()) : null)] : [];
      this.body.replaceChildren(...notes, ...this.front.current.nodes);
      this.front.current.onShown?.();
    } else {
      this.front.current = { nodes: [], keys: [] };
      const text = isWaiting && this.sender.isBusy ? "One moment ..." : this.doneText();
      this.body.replaceChildren(el("p", { class: "rl-done", tabindex: "-1" }, text));
    }
    this.setTools();
    this.keepFocus();
  }

  doneText() {
    const { answered, skipped } = this.screen.progress;
    const after = skipped ? `, and ${skipped} skipped` : "";
    return `All done: ${answered} answered${after}. Thank you! Undo and Back still work.`;
  }

  setTools() {
    this.back.disabled = !(this.shown ? this.shown.place > 0 : this.screen.can_back);
    this.undo.disabled = !this.screen.can_undo && !this.sender.isBusy;
    this.skip.disabled = !this.shown || this.shown.assignment === null || this.isHeld();
    const own = this.front.current.keys ?? [];
    const shared = [["B", "back"], ["U", "undo"], ["S", "skip"], ["?", "guidelines"]];
    this.keys.replaceChildren(...[...own, ...shared].map(([key, what]) => el("span", {}, el("kbd", {}, key), ` ${what}`)));
  }

  // A node that had the focus may be gone; if the focus fell out of the widget, the notebook's own keys would be in force.
  keepFocus(isWanted = false) {
    if (isWanted || this.hadFocus) this.root.focus({ preventScroll: true });
    this.hadFocus = false;
  }

  isHeld() {
    return this.root.dataset.state === "failed" && this.sender.isBusy;
  }

  // A field whose text outlives the screen being drawn again.
  field(name, label, attributes = {}) {
    const key = `${this.shown.assignment}/${name}`;
    const { tag = "input", value = "", ...others } = attributes;
    const shared = { class: "rl-input", dir: "auto", "aria-label": label, value: this.drafts.get(key) ?? value };
    const node = el(tag, { ...shared, ...(tag === "input" ? { type: "text" } : { rows: 3 }), ...others });
    node.addEventListener("input", () => this.drafts.set(key, node.value));
    return node;
  }

  comment() {
    if (!this.options.comment) return null;
    const field = this.field("comment", "Comment, if you like", { value: this.shown.comment });
    return { node: el("label", { class: "rl-field" }, "Comment, if you like ", el("kbd", {}, "N"), field), field };
  }

  // What comes back

  receive(reply) {
    if (reply.uid === "preview") this.front.current.onPreview?.(reply);
    else this.sender.receive(reply);
  }

  close() {
    clearInterval(this.clock);
  }

  onReply(message, reply) {
    if (!reply.screen) return;
    const before = this.shown;
    this.screen = reply.screen;
    this.model.set("screen", reply.screen); // For another view of this widget; the kernel knows it.
    if (this.sender.isBusy) return this.setTools(); // An answer is still on its way: its reply brings the next screen.
    const current = reply.screen.current;
    const isSame = before && current && before.assignment === current.assignment && ["answer", "skip"].includes(message.action);
    if (!isSame || !reply.ok) {
      this.hadFocus ||= this.root.contains(document.activeElement);
      this.show(current);
    } else {
      const { progress } = this.screen;
      this.bar.max = Math.max(1, progress.total);
      this.bar.value = progress.answered + progress.skipped;
      this.setTools();
    }
  }

  onState(state, error = "", canRetry = false) {
    const texts = { saving: "Saving ...", saved: "Saved.", failed: `Not saved yet: ${error} `,
      lost: `The kernel was restarted or is gone. Run this cell again: all that was saved is kept. ${error}` };
    this.setState(state, texts[state]);
    if (state !== "failed") return;
    if (canRetry) this.status.append("It is kept here and will be sent again. ", button("Try again", "", () => this.sender.retry()));
    else this.status.textContent = `Not saved: ${error}`;
    this.setTools();
  }

  setState(state, text) {
    this.root.dataset.state = state;
    this.status.textContent = text;
  }

  // Keys and time

  onKey(event) {
    this.touch();
    event.stopPropagation(); // The notebook has keys of its own, which cut and move cells.
    if (isScrolling(event)) return;
    const key = event.key;
    if (event.altKey || event.metaKey || event.isComposing) return;
    if (event.target instanceof HTMLButtonElement && (key === "Enter" || key === " ")) return; // It is its click.
    if (this.form) {
      if (key === "Escape") return this.closeForm();
      const choice = !isTyping(event.target) && this.form.keys[Number(key) - 1];
      if (choice) choice.click();
      return;
    }
    if (this.front.current.onKey?.(event)) return event.preventDefault();
    if (event.ctrlKey || isTyping(event.target)) {
      if (key === "Escape") this.root.focus();
      return;
    }
    const tools = { b: () => this.goBack(), u: () => this.takeBack(), s: () => this.askReason(), f: () => this.goOn(), "?": () => this.toggleGuide() };
    const tool = tools[key.toLowerCase()];
    if (!tool) return;
    event.preventDefault();
    tool();
  }

  touch() {
    this.touchedAt = performance.now();
    this.hadFocus = true;
  }

  // Time counts while the page is in sight and somebody did something in the last minute.
  tick() {
    const now = performance.now();
    const since = now - (this.tickedAt ?? now);
    this.tickedAt = now;
    if (!this.root.isConnected) return clearInterval(this.clock);
    if (document.visibilityState === "visible" && now - this.touchedAt < IDLE_MS && this.shown) this.spent += Math.min(since, 1000);
    const text = this.soFar();
    if (this.count.textContent !== text) this.count.textContent = text;
  }

  // A front end without an end counts what was done and not what is left.
  soFar() {
    const { progress } = this.screen;
    const done = this.front.count?.(progress) ?? `${progress.answered + progress.skipped} of ${progress.total}`;
    return `${done} · ${duration(progress.seconds + this.spent / 1000)}`;
  }

  takeSeconds() {
    this.tick();
    const seconds = Math.round(this.spent) / 1000;
    this.spent = 0;
    return seconds;
  }
}
