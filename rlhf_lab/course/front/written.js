// Written answers and their rubric. Every text becomes a text node: nothing that a student wrote is ever parsed as HTML.

const REPLY_MS = 10000;

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") node[name] = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function button(label, key, action, attributes = {}) {
  return el("button", { type: "button", class: "rg-button", onclick: action, ...attributes }, key ? el("kbd", {}, key) : null, key ? " " : null, label);
}

function uid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID needs https
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function isTyping(target) {
  return target instanceof HTMLTextAreaElement || (target instanceof HTMLInputElement && target.type === "text");
}

class Page {
  constructor(model, root) {
    Object.assign(this, { model, root, screen: model.get("screen"), sent: null, timer: 0, isLost: false, drafts: new Map() });
    this.count = el("span", { class: "rg-count" });
    this.bar = el("progress", { "aria-label": "Answers that are graded", max: 1, value: 0 });
    this.previous = button("Previous", "\u2190", () => this.go(this.screen.place - 1));
    this.next = button("Next", "\u2192", () => this.go(this.screen.place + 1));
    this.ungraded = button("Next ungraded", "U", () => this.go(this.screen.next_ungraded));
    this.body = el("div");
    this.status = el("div", { class: "rg-status", role: "status" });
    const keys = [["1 to 9", "tick"], ["0", "nothing is met"], ["P", "points"], ["N", "comment"], ["Enter", "save and next"], ["Esc", "leave a field"]];
    root.append(
      el("div", { class: "rg-top" }, el("div", { class: "rg-progress" }, this.bar, this.count),
        el("div", { class: "rg-tools", role: "toolbar", "aria-label": "Answers" }, this.previous, this.next, this.ungraded)),
      this.body,
      el("div", { class: "rg-bottom" }, this.status, el("div", { class: "rg-keys" }, keys.map(([key, what]) => el("span", {}, el("kbd", {}, key), ` ${what}`)))));
    root.addEventListener("keydown", (event) => this.onKey(event));
    this.show();
    this.setState("ready", "");
  }

  show() {
    const { item, place, total, graded } = this.screen;
    const hadFocus = this.root.contains(document.activeElement);
    this.bar.max = total;
    this.bar.value = graded;
    this.count.textContent = `${graded} of ${total} graded \u00b7 answer ${place + 1}`;
    const given = this.drafts.get(item.key) ?? item;
    const points = (criterion) => `${criterion.points} point${criterion.points === 1 ? "" : "s"}`;
    this.boxes = item.criteria.map((criterion, index) => el("input", { type: "checkbox", checked: given.met.includes(index + 1), onchange: () => this.add() }));
    this.points = el("input", { type: "text", inputmode: "decimal", class: "rg-input rg-points", value: given.points, "aria-label": `Points, 0 to ${item.max_points}` });
    this.comment = el("textarea", { class: "rg-input", rows: 4, dir: "auto", value: given.comment });
    for (const field of [this.points, this.comment]) field.addEventListener("input", () => this.keep());
    const answer = el("div", { class: "rg-text", dir: "auto", tabindex: "0", role: "group", "aria-label": "Answer" });
    answer.textContent = item.answer || "(no answer any more)";
    this.body.replaceChildren(
      el("div", { class: "rg-title" }, item.title), el("div", { class: "rg-where" }, item.where),
      el("div", { class: "rg-pair" }, answer,
        el("div", {},
          el("fieldset", { class: "rg-rubric" }, el("legend", {}, "Rubric"),
            item.criteria.map((criterion, index) => el("label", { class: "rg-criterion" }, this.boxes[index], el("kbd", {}, String(index + 1)),
              el("span", {}, criterion.text), el("span", { class: "rg-worth" }, points(criterion))))),
          el("label", { class: "rg-field" }, el("kbd", {}, "P"), " Points ", this.points, ` of ${item.max_points}`),
          el("label", { class: "rg-field" }, el("kbd", {}, "N"), " Comment, which the student will read", this.comment),
          button("Save and next", "Enter", () => this.save(), { class: "rg-button rg-main", "data-testid": "save" }))));
    this.setTools();
    if (hadFocus) this.root.focus({ preventScroll: true }); // Else the notebook's own keys would be in force.
  }

  setTools() {
    const { place, total, next_ungraded: following } = this.screen;
    const isBusy = this.sent !== null || this.isLost;
    this.previous.disabled = isBusy || place === 0;
    this.next.disabled = isBusy || place === total - 1;
    this.ungraded.disabled = isBusy || following === null || following === place;
  }

  // What was filled in, which outlives going to another answer and back.
  form() {
    const met = this.boxes.flatMap((box, index) => (box.checked ? [index + 1] : []));
    return { met, points: this.points.value, comment: this.comment.value };
  }

  keep() {
    this.drafts.set(this.screen.item.key, this.form());
  }

  add() {
    const { criteria } = this.screen.item;
    this.points.value = String(criteria.reduce((sum, criterion, index) => sum + (this.boxes[index].checked ? criterion.points : 0), 0));
    this.keep();
  }

  tick(number) {
    if (number > this.boxes.length) return;
    for (const [index, box] of this.boxes.entries()) {
      if (number === 0) box.checked = false;
      else if (index === number - 1) box.checked = !box.checked;
    }
    this.add();
  }

  go(place) {
    if (place !== null && place >= 0 && place < this.screen.total) this.send({ action: "show", place });
  }

  save() {
    this.send({ action: "save", key: this.screen.item.key, ...this.form() });
  }

  send(message) {
    if (this.sent || this.isLost) return;
    this.sent = { uid: uid(), ...message };
    this.transmit();
  }

  transmit() {
    this.setState("saving", this.sent.action === "save" ? "Saving ..." : "One moment ...");
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.wait(), REPLY_MS);
    try {
      this.model.send(this.sent);
    } catch (error) {
      this.lose();
    }
  }

  wait() {
    this.setState("failed", "The kernel has not confirmed it. It may be busy with another cell. ");
    this.status.append(button("Try again", "", () => this.transmit()));
  }

  receive(reply) {
    if (!this.sent || reply.uid !== this.sent.uid) return; // A second reply to what was sent twice.
    clearTimeout(this.timer);
    const { action, key } = this.sent;
    this.sent = null;
    if (!reply.ok) {
      this.setState("failed", `Not saved: ${reply.error}`);
      return;
    }
    if (action === "save") this.drafts.delete(key);
    this.screen = reply.screen;
    this.model.set("screen", reply.screen); // For another view of this widget; the kernel knows it.
    const isDone = this.screen.graded === this.screen.total;
    this.setState(action === "save" ? "saved" : "ready", action === "save" ? `Saved.${isDone ? " All answers are graded." : ""}` : "");
    this.show();
  }

  lose() {
    clearTimeout(this.timer);
    this.isLost = true;
    this.setState("lost", `The kernel was restarted or is gone. Run this cell again: all that was saved is kept. ${this.sent ? "The last grade was not confirmed." : ""}`);
  }

  setState(state, text) {
    this.root.dataset.state = state;
    this.status.textContent = text;
    this.setTools();
  }

  onKey(event) {
    event.stopPropagation(); // The notebook has keys of its own, which cut and move cells.
    const { key, target } = event;
    if (event.altKey || event.metaKey || event.isComposing) return;
    if (key === "Escape") return this.root.focus();
    if (target instanceof HTMLButtonElement && (key === "Enter" || key === " ")) return; // It is its click.
    const isSend = key === "Enter" && (event.ctrlKey || !(target instanceof HTMLTextAreaElement));
    if (!isSend && (event.ctrlKey || isTyping(target))) return;
    const acts = { arrowleft: () => this.go(this.screen.place - 1), arrowright: () => this.go(this.screen.place + 1),
      u: () => this.go(this.screen.next_ungraded), p: () => this.points.select(), n: () => this.comment.focus() };
    const act = isSend ? () => this.save() : /^[0-9]$/.test(key) ? () => this.tick(Number(key)) : acts[key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

export default {
  render({ model, el: parent }) {
    const root = el("section", { class: "rlhf-grading tex2jax_ignore mathjax_ignore", tabindex: "0", role: "group",
      "aria-label": "Grade written answers", "data-testid": "rlhf-grading", "data-lm-suppress-shortcuts": true });
    parent.append(root);
    const page = new Page(model, root);
    const onMessage = (reply) => page.receive(reply);
    // The kernel that this page spoke to is gone, or was restarted.
    const onLive = () => model.comm_live !== true && page.lose();
    model.on("msg:custom", onMessage);
    model.on("comm_live_update", onLive);
    return () => {
      clearTimeout(page.timer);
      model.off("msg:custom", onMessage);
      model.off("comm_live_update", onLive);
    };
  },
};
